/* Host files as names and options describe them: "x", "file:x", and what
 * "file.driver=file,file.filename=x,..." says besides.
 *
 * What says how the host is asked (aio) has one answer here: the loop's way.
 * Thread: the image's loop. */
#include "block/driver.h"
#include "block/file_internal.h"

#include "base/opts.h"

#include <errno.h>

static int take_locking(struct open_policy *policy, struct error *err)
{
	static const char *const words[] = {"auto", "on", "off", NULL};
	const char *value = opts_get(policy->options, "locking");
	int at = value ? parse_choice(value, words) : 0;

	if (at < 0)
		return err_set(err, -EINVAL, "invalid parameter value: %s", value);
	policy->no_lock = at == 2;
	return 0;
}

static int judge_aio(const struct open_policy *policy, struct error *err)
{
	static const char *const words[] = {"threads", "native", "io_uring", NULL};
	const char *value = opts_get(policy->options, "aio");
	int at = value ? parse_choice(value, words) : 0;

	if (at < 0)
		return err_set(err, -EINVAL, "invalid parameter value: %s", value);
	if (at == 1 && policy->cache != CACHE_NONE && policy->cache != CACHE_DIRECTSYNC)
		return err_set(err, -EINVAL,
			       "aio=native was specified, but it requires cache.direct=on, which "
			       "was not specified.");
	return 0;
}

static int take_options(struct open_policy *policy, struct error *err)
{
	const struct opts *o = policy->options;
	bool ignored;
	int ret = take_locking(policy, err);

	if (ret == 0)
		ret = judge_aio(policy, err);
	if (ret == 0)
		ret = opts_get_bool(o, "drop-cache", &ignored, err);
	if (ret == 0)
		ret = opts_get_bool(o, "x-check-cache-dropped", &ignored, err);
	if (ret == 0 && opts_has(o, "pr-manager"))
		ret = err_set(err, -ENOENT, "No persistent reservation manager with id '%s'",
			      opts_get(o, "pr-manager"));
	return ret;
}

static int open_host_file(struct fiber *f, struct image **out, const char *name,
			  const struct open_policy *policy, const char *driver, struct error *err)
{
	struct open_policy mine = *policy;
	size_t len = strlen(driver);
	int ret;

	if (!name)
		name = opts_get(policy->options, "filename");
	else if (!strncmp(name, driver, len) && name[len] == ':')
		name += len + 1;
	if (!name || !*name)
		return err_set(err, -EINVAL, "The '%s' block driver requires a file name", driver);
	ret = take_options(&mine, err);
	return ret < 0 ? ret : file_open_path(f, out, name, &mine, err);
}

static int file_protocol_open(struct fiber *f, struct image **out, const char *name,
			      const struct open_policy *policy, struct error *err)
{
	return open_host_file(f, out, name, policy, "file", err);
}

static int host_device_open(struct fiber *f, struct image **out, const char *name,
			    const struct open_policy *policy, struct error *err)
{
	return open_host_file(f, out, name, policy, "host_device", err);
}

#define OPTIONS "filename locking aio drop-cache x-check-cache-dropped pr-manager"

const struct image_protocol file_protocol = {
	.name = "file",
	.options = OPTIONS,
	.open = file_protocol_open,
};

const struct image_protocol host_device_protocol = {
	.name = "host_device",
	.options = OPTIONS,
	.open = host_device_open,
};
