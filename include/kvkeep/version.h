/* SPDX-License-Identifier: Apache-2.0 */
/** The version a program was built with, and the one it runs with. */
#ifndef KVKEEP_VERSION_H
#define KVKEEP_VERSION_H

#include <kvkeep/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVK_VERSION_MAJOR 0
#define KVK_VERSION_MINOR 1
#define KVK_VERSION_PATCH 0

/** Returns the version of the library that runs, such as "0.1.0". The text is static. */
KVK_API const char *kvk_version(void);

#ifdef __cplusplus
}
#endif

#endif
