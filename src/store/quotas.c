/* SPDX-License-Identifier: Apache-2.0 */
#include "store/quotas.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "store/core.h"
#include "util/alloc.h"
#include "util/clock.h"

#define NAME "quotas"
#define FILE_BYTES_MAX (UINT64_C(1) << 20)
#define LOCK_MS 1000
#define FOLLOW_US 1000000
/* Two writes within a tick of the file system's clock have one time: what is younger than this is read again. */
#define YOUNG_NS UINT64_C(2000000000)

void kvk_quotas_init(struct kvk_quotas *quotas)
{
	pthread_mutex_init(&quotas->lock, NULL);
	atomic_init(&quotas->default_bytes, UINT64_MAX);
}

void kvk_quotas_release(struct kvk_quotas *quotas)
{
	pthread_mutex_destroy(&quotas->lock);
}

/* ---- the catalog -------------------------------------------------------------------------------- */

static int apply_one(struct kvk_core *core, const void *tenant, uint32_t tenant_bytes, uint64_t bytes)
{
	int err = kvk_catalog_set_quota(core->catalog, tenant, tenant_bytes, bytes);

	if (!err && !tenant)
		atomic_store(&core->quotas.default_bytes, bytes);
	return err;
}

static uint64_t bytes_of(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= 0 ? (uint64_t)json_integer_value(value) : UINT64_MAX;
}

static int apply(struct kvk_core *core, const json_t *kept)
{
	const json_t *by_default = json_object_get(kept, "default");
	const char *tenant;
	json_t *value;
	int err = 0;

	if (by_default)
		err = apply_one(core, NULL, 0, bytes_of(by_default));
	json_object_foreach(json_object_get(kept, "tenants"), tenant, value) {
		if (!err)
			err = apply_one(core, tenant, (uint32_t)strlen(tenant), bytes_of(value));
	}
	return err;
}

/* ---- the file ----------------------------------------------------------------------------------- */

static int load(struct kvk_core *core, json_t **ret)
{
	json_t *kept;
	uint64_t bytes;
	void *data;
	int err = core->backend->ops->load_file(core->backend, NAME, &data, &bytes, FILE_BYTES_MAX);

	if (err == -ENOENT) {
		*ret = json_object();
		return *ret ? 0 : -ENOMEM;
	}
	if (err)
		return err;
	kept = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
	kvk_mem_free(data);
	if (!json_is_object(kept)) {
		json_decref(kept);
		return -EBADMSG;
	}
	*ret = kept;
	return 0;
}

static int save(struct kvk_core *core, const json_t *kept)
{
	char *text = json_dumps(kept, JSON_COMPACT | JSON_SORT_KEYS);
	int err;

	if (!text)
		return -ENOMEM;
	if (strlen(text) > FILE_BYTES_MAX)
		err = -EUSERS;
	else
		err = core->backend->ops->save_file(core->backend, NAME, text, strlen(text), false);
	free(text);
	return err;
}

/* Called with the lock held. */
static int take_over(struct kvk_core *core)
{
	uint64_t changed_ns = 0, now_ns = kvk_wall_ns();
	json_t *kept;
	int err;

	/* The time first: what is written in between is then seen next time. */
	core->backend->ops->folder_time(core->backend, ".kvkeep", &changed_ns);
	if (changed_ns && changed_ns == core->quotas.seen_ns)
		return 0;
	core->quotas.seen_ns = now_ns > changed_ns + YOUNG_NS ? changed_ns : 0;
	err = load(core, &kept);
	if (err)
		return err;
	err = apply(core, kept);
	json_decref(kept);
	return err;
}

static void say(struct kvk_core *core, int err)
{
	if (err)
		kvk_log(&core->log, KVK_LOG_WARNING, "the quotas in .kvkeep/" NAME " cannot be taken over: %s", strerror(-err));
}

int kvk_quotas_open(struct kvk_core *core)
{
	const struct kvk_spec *spec = &core->spec;
	int err = apply_one(core, NULL, 0, spec->default_quota_bytes);

	for (uint32_t i = 0; i < spec->quota_count && !err; i++)
		err = apply_one(core, spec->quotas[i].tenant, (uint32_t)strlen(spec->quotas[i].tenant),
				spec->quotas[i].bytes);
	if (!err)
		say(core, take_over(core));
	return err;
}

void kvk_quotas_follow(struct kvk_core *core)
{
	uint64_t now_us = kvk_now_us();

	if (now_us < core->quotas.next_us)
		return;
	core->quotas.next_us = now_us + FOLLOW_US;
	pthread_mutex_lock(&core->quotas.lock);
	say(core, take_over(core));
	pthread_mutex_unlock(&core->quotas.lock);
}

/* ---- changing ----------------------------------------------------------------------------------- */

/* tenant NULL: the default. -EINVAL: not UTF-8. */
static int change(json_t *kept, const char *tenant, uint64_t quota_bytes)
{
	json_t *tenants = json_object_get(kept, "tenants"), *name = json_string(tenant ? tenant : "");
	json_t *value = quota_bytes > INT64_MAX ? json_null() : json_integer((json_int_t)quota_bytes);
	int err = name && value ? 0 : -EINVAL;

	json_decref(name);
	if (!err && !tenant)
		return json_object_set_new(kept, "default", value) ? -ENOMEM : 0;
	if (!err && !json_is_object(tenants)) {
		tenants = json_object();
		err = json_object_set_new(kept, "tenants", tenants) ? -ENOMEM : 0;
	}
	if (err) {
		json_decref(value);
		return err;
	}
	return json_object_set_new(tenants, tenant, value) ? -ENOMEM : 0;
}

/* Called with the lock held, here and on the medium. */
static int set_and_save(struct kvk_core *core, const char *tenant, uint32_t tenant_bytes, uint64_t quota_bytes)
{
	json_t *kept = NULL;
	int err = load(core, &kept);

	/* What nobody can read keeps nobody from setting anew. */
	if (err == -EBADMSG || err == -EFBIG) {
		kept = json_object();
		err = kept ? 0 : -ENOMEM;
	}
	if (!err)
		err = change(kept, tenant, quota_bytes);
	if (!err)
		err = save(core, kept);
	if (!err)
		err = apply_one(core, tenant, tenant_bytes, quota_bytes > INT64_MAX ? UINT64_MAX : quota_bytes);
	json_decref(kept);
	return err;
}

int kvk_quotas_set(struct kvk_core *core, const void *tenant, uint32_t tenant_bytes, uint64_t quota_bytes)
{
	char text[KVK_KEY_BYTES_MAX + 1] = { 0 };
	int err;

	if (tenant && tenant_bytes > 0)
		memcpy(text, tenant, tenant_bytes);
	if (tenant && strlen(text) != tenant_bytes)
		return -EINVAL;
	pthread_mutex_lock(&core->quotas.lock);
	err = core->backend->ops->lock(core->backend, KVK_LOCK_QUOTAS, LOCK_MS);
	if (!err) {
		err = set_and_save(core, tenant ? text : NULL, tenant_bytes, quota_bytes);
		core->backend->ops->unlock(core->backend, KVK_LOCK_QUOTAS);
	}
	pthread_mutex_unlock(&core->quotas.lock);
	return err;
}
