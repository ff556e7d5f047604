/* What all disk devices are told: sizes of blocks, errors, caches; see disk.h.
 * Thread: control. */
#include "devices/disk.h"

#include "block/blk.h"

#include <errno.h>

#define BLOCK_MIN 512u
#define BLOCK_MAX (2u << 20)

static int check_word(const char *name, const char *value, const char *const *words,
		      struct error *err)
{
	for (; *words; words++)
		if (!strcmp(value, *words))
			return 0;
	return err_set(err, -EINVAL, "Parameter '%s' does not accept value '%s'", name, value);
}

static int check_block(const struct device *dev, const char *name, u32 bytes, struct error *err)
{
	if (bytes < BLOCK_MIN || bytes > BLOCK_MAX)
		return err_set(err, -EINVAL,
			       "Property %s.%s doesn't take value %u (minimum: %u, maximum: %u)",
			       dev->cls->name, name, bytes, BLOCK_MIN, BLOCK_MAX);
	if (!is_pow2(bytes))
		return err_set(err, -EINVAL,
			       "Property %s.%s doesn't take value '%u', it's not a power of 2",
			       dev->cls->name, name, bytes);
	return 0;
}

static int check_multiples(const struct disk_props *p, struct error *err)
{
	const struct {
		const char *name;
		u32 bytes;
	} sizes[] = {{"min_io_size", p->min_io_bytes},
		     {"opt_io_size", p->opt_io_bytes},
		     {"discard_granularity",
		      p->granularity == DISK_SIZE_AUTO ? 0 : p->granularity}};

	if (p->logical_bytes > p->physical_bytes)
		return err_set(err, -EINVAL,
			       "logical_block_size > physical_block_size not supported");
	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
		if (sizes[i].bytes % p->logical_bytes)
			return err_set(err, -EINVAL, "%s must be a multiple of logical_block_size",
				       sizes[i].name);
	return 0;
}

static int check(const struct disk_props *p, const struct device *dev, struct error *err)
{
	static const char *const actions[] = {"auto", "report", "ignore", "enospc", "stop", NULL};
	static const char *const caches[] = {"on", "off", "auto", NULL};
	int ret = check_word("werror", p->werror, actions, err);

	if (ret == 0)
		ret = check_word("rerror", p->rerror, actions, err);
	if (ret == 0)
		ret = check_word("write-cache", p->write_cache, caches, err);
	if (ret == 0)
		ret = check_block(dev, "logical_block_size", p->logical_bytes, err);
	if (ret == 0)
		ret = check_block(dev, "physical_block_size", p->physical_bytes, err);
	return ret < 0 ? ret : check_multiples(p, err);
}

int disk_props_apply(const struct disk_props *p, const struct device *dev, struct error *err)
{
	int ret;

	if (!p->blk)
		return err_set(err, -EINVAL, "drive property not set");
	ret = check(p, dev, err);
	if (ret == 0 && strcmp(p->werror, "auto"))
		ret = blk_set_error_action(p->blk, BLK_WRITE, p->werror, err);
	if (ret == 0 && strcmp(p->rerror, "auto"))
		ret = blk_set_error_action(p->blk, BLK_READ, p->rerror, err);
	return ret;
}
