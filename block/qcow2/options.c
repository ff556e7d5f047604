/* Options that say how to use an image: caches, lazy refcounts, discards.
 *
 * Words and messages are the reference's.  What only shapes its caches (sizes of
 * parts, times to live) is judged and has no effect here; overlap checks are
 * always on, whatever is asked for.  Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include "base/opts.h"

#include <errno.h>

static int get_size(const struct opts *o, const char *name, u64 *out, struct error *err)
{
	if (opts_get_size(o, name, 1, out, err) == 0)
		return 0;
	return err_set(
		err, -EINVAL,
		"Parameter '%s' expects a non-negative number below 2^64\n"
		"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
		"and exabytes, respectively.",
		name);
}

static int take_caches(const struct qcow2 *q, struct open_policy *policy, struct error *err)
{
	u64 all = UINT64_MAX, l2 = 0, refcount = 0, entry = q->cluster_bytes;
	const struct opts *o = policy->options;
	int ret = get_size(o, "cache-size", &all, err);

	if (ret == 0)
		ret = get_size(o, "l2-cache-size", &l2, err);
	if (ret == 0)
		ret = get_size(o, "refcount-cache-size", &refcount, err);
	if (ret == 0)
		ret = get_size(o, "l2-cache-entry-size", &entry, err);
	if (ret < 0)
		return ret;
	if (l2 > all)
		return err_set(err, -EINVAL, "l2-cache-size may not exceed cache-size");
	if (refcount > all)
		return err_set(err, -EINVAL, "refcount-cache-size may not exceed cache-size");
	if (opts_has(o, "cache-size") && l2 && refcount)
		return err_set(err, -EINVAL,
			       "cache-size, l2-cache-size and refcount-cache-size may not be set "
			       "at the same time");
	if (!is_pow2(entry) || entry < 512 || entry > q->cluster_bytes)
		return err_set(err, -EINVAL,
			       "L2 cache entry size must be a power of two between 512 and the "
			       "cluster size (%u)",
			       q->cluster_bytes);
	if (!l2 && all != UINT64_MAX)
		l2 = all - refcount;
	if (l2)
		policy->l2_cache_bytes = (u32)MIN(l2, (u64)UINT32_MAX);
	return 0;
}

static int judge_overlap(const struct opts *o, struct error *err)
{
	static const char *const words[] = {"none", "constant", "cached", "all", NULL};
	const char *value = opts_get(o, "overlap-check");
	const char *template = opts_get(o, "overlap-check.template");

	if (value && template && strcmp(value, template))
		return err_set(err, -EINVAL,
			       "Conflicting values for qcow2 options 'overlap-check' ('%s') and "
			       "'overlap-check.template' ('%s')",
			       value, template);
	if (!value)
		value = template;
	if (value && parse_choice(value, words) < 0)
		return err_set(err, -EINVAL,
			       "Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed "
			       "are any of the following: none, constant, cached, all",
			       value);
	return 0;
}

static int judge_numbers_and_flags(const struct opts *o, struct error *err)
{
	static const char *const flags[] = {"overlap-check.main-header",
					    "overlap-check.active-l1",
					    "overlap-check.active-l2",
					    "overlap-check.refcount-table",
					    "overlap-check.refcount-block",
					    "overlap-check.snapshot-table",
					    "overlap-check.inactive-l1",
					    "overlap-check.inactive-l2",
					    "overlap-check.bitmap-directory",
					    "pass-discard-snapshot",
					    "pass-discard-other"};
	const char *interval = opts_get(o, "cache-clean-interval");
	bool ignored;
	u64 number;
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_LEN(flags) && ret == 0; i++)
		ret = opts_get_bool(o, flags[i], &ignored, err);
	if (ret == 0 && interval && parse_u64(interval, &number) < 0)
		ret = err_set(err, -EINVAL, "Parameter 'cache-clean-interval' expects a number");
	return ret;
}

int qcow2_take_options(struct qcow2 *q, struct open_policy *policy, struct error *err)
{
	const struct opts *o = policy->options;
	int ret;

	if (!o || !o->n)
		return 0;
	ret = opts_get_bool(o, "lazy-refcounts", &q->lazy, err);
	if (ret == 0 && q->lazy && q->version < 3)
		ret = err_set(err, -EINVAL,
			      "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
			      "compatibility level");
	if (ret == 0)
		ret = opts_get_bool(o, "pass-discard-request", &q->discard_host, err);
	if (ret == 0)
		ret = judge_overlap(o, err);
	if (ret == 0)
		ret = judge_numbers_and_flags(o, err);
	return ret < 0 ? ret : take_caches(q, policy, err);
}
