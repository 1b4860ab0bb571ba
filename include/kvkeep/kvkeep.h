/* SPDX-License-Identifier: Apache-2.0 */
/** Everything an engine needs: keys, stores, simulations, and the version. See libkvkeep(3). */
#ifndef KVKEEP_KVKEEP_H
#define KVKEEP_KVKEEP_H

#include <kvkeep/export.h>
#include <kvkeep/key.h>
#include <kvkeep/simulate.h>
#include <kvkeep/store.h>
#include <kvkeep/version.h>

#endif
