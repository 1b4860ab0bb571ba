/* SPDX-License-Identifier: Apache-2.0 */
/** What libkvkeep exports is marked with KVK_API; everything else stays hidden. */
#ifndef KVKEEP_EXPORT_H
#define KVKEEP_EXPORT_H

#if defined(__GNUC__) || defined(__clang__)
#define KVK_API __attribute__((visibility("default")))
#else
#define KVK_API
#endif

#endif
