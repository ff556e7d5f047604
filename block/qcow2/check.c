/* Verification of an image's metadata: the order of things.
 *
 * Every reference is counted and compared with the refcounts, then COPIED flags
 * with those.  Works on the file: what is pending is committed first, and after
 * a repair the tables are loaded anew.  No other request may run meanwhile if
 * something is to be repaired.  Thread: the image's loop. */
#include "block/qcow2/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

void check_line(struct check *c, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (!c->req->line || c->quiet)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->req->line(c->req->arg, text);
}

/* Count and compare, a window at a time.  `again`: what counting finds is known. */
static int check_windows(struct fiber *f, struct check *c, bool again)
{
	bool counted = again && c->n > c->clusters; /* one window: still there */
	int ret = 0;

	c->quiet = again;
	for (c->first = 0; c->first < c->clusters + 1 && ret == 0; c->first += c->n) {
		if (!counted)
			ret = check_count(f, c);
		c->quiet = false; /* figures of refcounts are of each window */
		if (ret == 0)
			ret = check_compare(f, c);
		c->quiet = true;
	}
	c->quiet = false;
	return ret;
}

/* After a repair: what is in memory is stale. */
static int reload(struct fiber *f, struct check *c, struct error *err)
{
	struct open_policy policy = {.writable = false};

	qcow2_unload(c->q);
	return qcow2_load(f, c->q, &policy, err);
}

/* The old structure is counted, too: it is leaked then, and that is repaired. */
static int count_for_rebuild(struct fiber *f, struct check *c, struct error *err)
{
	int ret;

	if (c->n <= c->clusters)
		return err_set(err, -EFBIG, "The image is too large to rebuild its refcounts");
	c->first = 0;
	c->quiet = true;
	ret = check_count(f, c);
	c->quiet = false;
	return ret < 0 ? err_set_errno(err, ret, "Could not count references") : 0;
}

/* A new structure, and everything looked at again. */
static int rebuild(struct fiber *f, struct check *c, struct error *err)
{
	struct check_result *r = &c->req->result, first = *r;
	int ret = count_for_rebuild(f, c, err);

	if (ret == 0)
		ret = check_rebuild(f, c, err);
	if (ret == 0)
		ret = reload(f, c, err);
	if (ret < 0)
		return ret;
	*r = (struct check_result){0};
	c->rebuild = c->zero_seen = false;
	c->fixing = true;
	c->clusters = clusters_of(c->q, c->q->img.below->bytes);
	ret = check_windows(f, c, false);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not check the rebuilt image");
	/* Leaks that were the old structure are nobody's. */
	r->corruptions_fixed =
		first.corruptions_fixed +
		(first.corruptions > r->corruptions ? first.corruptions - r->corruptions : 0);
	r->leaks_fixed = first.leaks_fixed + (first.leaks > r->leaks ? first.leaks - r->leaks : 0);
	return 0;
}

/* What was found in refcounts is found again, and repaired as asked. */
static int fix_refcounts(struct fiber *f, struct check *c)
{
	struct check_result *r = &c->req->result;

	if (!r->leaks && !r->corruptions)
		return 0;
	r->corruptions -= c->low;
	r->leaks -= c->high;
	c->fixing = true;
	return check_windows(f, c, true);
}

static int repair(struct fiber *f, struct check *c, struct error *err)
{
	const struct check_request *req = c->req;
	bool fits = c->n > c->clusters;
	int ret;

	/* Entries of 0 can be put right one by one; the reference does not. */
	if (c->rebuild || (c->zero_seen && !req->in_place && fits)) {
		if (req->fix_errors)
			return rebuild(f, c, err);
		check_line(c, "ERROR need to rebuild refcount structures");
		return err_set(err, -EIO, "%s", strerror(EIO));
	}
	ret = fix_refcounts(f, c);
	if (ret == 0 && c->changed) { /* flags are compared with what is there now */
		ret = file_sync(f, c->q);
		if (ret == 0)
			ret = reload(f, c, err);
	}
	if (ret < 0 && !err->code)
		err_set_errno(err, ret, "Could not repair the refcounts");
	return ret;
}

static int check_all(struct fiber *f, struct check *c, struct error *err)
{
	struct check_result *r = &c->req->result;
	int ret = check_windows(f, c, false);

	if (ret < 0)
		return err_set_errno(err, ret, "Could not check the refcounts");
	if (c->req->fix_errors || c->req->fix_leaks)
		ret = repair(f, c, err);
	if (ret < 0)
		return ret;
	ret = check_copied(f, c);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not check the flags");
	r->total_clusters = clusters_of(c->q, c->q->img.bytes);
	r->image_end_bytes = (c->highest + 1) << c->q->cluster_bits;
	return 0;
}

/* The image is whole: neither dirty nor corrupt any more. */
static int mark_clean(struct fiber *f, struct check *c, struct error *err)
{
	const struct check_result *r = &c->req->result;
	struct qcow2 *q = c->q;
	int ret = file_sync(f, q);

	if (ret == 0 && !r->corruptions && !r->check_errors && c->req->fix_errors) {
		ret = header_set_incompatible(f, q, INCOMPAT_DIRTY | INCOMPAT_CORRUPT, false);
		q->corrupt = false;
	}
	if (ret == 0 && c->changed)
		return reload(f, c, err);
	return ret < 0 ? err_set_errno(err, ret, "Could not mark the image clean") : 0;
}

int qcow2_check(struct fiber *f, struct image *img, struct check_request *req, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	struct check c = {.q = q, .req = req, .structure = true};
	int ret = q->changed && !q->corrupt ? qcow2_commit_all(f, q) : 0;

	req->result = (struct check_result){0};
	if (ret < 0)
		return err_set_errno(err, ret, "Could not flush the image");
	c.clusters = clusters_of(q, q->img.below->bytes);
	c.n = MIN(c.clusters + 1, CHECK_WINDOW);
	c.counts = try_alloc(c.n * sizeof(*c.counts));
	c.l2 = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	c.block = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	if (!c.counts || !c.l2 || !c.block)
		ret = err_set(err, -ENOMEM, "Could not allocate the reference counts");
	/* A repair changes no guest data: bitmaps stay valid, who knows of the rest. */
	if (ret == 0 && (req->fix_leaks || req->fix_errors)) {
		ret = header_clear_autoclear(f, q, AUTOCLEAR_BITMAPS);
		if (ret < 0)
			err_set_errno(err, ret, "Could not clear autoclear bits");
	}
	if (ret == 0)
		ret = check_snapshots(&c, err);
	if (ret == 0)
		ret = check_all(f, &c, err);
	if (ret == 0)
		ret = check_fix_snapshots(f, &c, err);
	if (ret == 0 && (req->fix_leaks || req->fix_errors))
		ret = mark_clean(f, &c, err);
	free(c.counts);
	free(c.l2);
	free(c.block);
	return ret;
}
