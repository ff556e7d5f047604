/* External data files: guest data in a file of its own, at the guest's offsets.
 *
 * Its clusters have no refcounts, are never shared, compressed or moved.  When it
 * is to stay valid as a raw image ("raw external data"), what the map calls zeros
 * must be zeros in the file too.
 * QEMU's docs/interop/qcow2, "external data file".  Thread: the image's loop. */
#include "block/qcow2/data_file.h"
#include "block/qcow2/parts.h"

#include "base/opts.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>
#include <sys/stat.h>

/* The image itself cannot hold its guest's data too. */
static bool is_same_file(const struct image *a, const char *path)
{
	struct stat mine, other;

	while (a->below)
		a = a->below;
	return a->driver == &file_driver && fstat(file_fd(a), &mine) == 0 &&
	       stat(path, &other) == 0 && mine.st_dev == other.st_dev &&
	       mine.st_ino == other.st_ino;
}

/* The name comes from the image, which may be anybody's: a plain one. */
static int judge_name(const struct qcow2 *q, struct error *err)
{
	if (!strncmp(q->data_name, "json:", 5))
		return err_set(err, -EINVAL, "An image may name its data file only plainly");
	if (is_same_file(q->img.below, q->data_name))
		return err_set(err, -EINVAL, "'%s' is the image itself, not a data file",
			       q->data_name);
	return 0;
}

int data_file_open(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
		   struct error *err)
{
	bool chosen = false;
	int ret;

	for (unsigned i = 0; policy->options && i < policy->options->n; i++)
		chosen |= !strncmp(policy->options->v[i].name, "data-file", 9);
	q->data = q->img.below;
	if (chosen && !q->data_external)
		return err_set(err, -EINVAL,
			       "'data-file' can only be set for images with an external data file");
	if (!q->data_external)
		return 0;
	if (!chosen && !q->data_name)
		return err_set(err, -EINVAL, "'data-file' is required for this image");
	if (policy->no_backing && !policy->writable && !policy->check_only)
		return 0; /* looked at from outside: it may be anywhere */
	if (chosen)
		return image_open_child(f, &q->data, "data-file.", NULL, policy, err);
	/* As it stands, not from the image's folder: so does the reference. */
	ret = judge_name(q, err);
	return ret < 0 ? ret
		       : image_open_child(f, &q->data, "data-file.", q->data_name, policy, err);
}

int data_file_close(struct fiber *f, struct qcow2 *q)
{
	int ret = q->data && q->data != q->img.below ? image_close(f, q->data) : 0;

	free(q->data_name);
	q->data_name = NULL;
	q->data = NULL;
	return ret;
}

/* What the guest cannot see of the last cluster is no part of the raw image. */
static u64 inside(const struct qcow2 *q, u64 goff, u64 bytes)
{
	return goff < q->img.bytes ? MIN(bytes, q->img.bytes - goff) : 0;
}

int data_file_drop(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes, bool unmap)
{
	int ret = 0;

	if (!q->data_external)
		return 0;
	bytes = inside(q, goff, bytes);
	if (bytes && q->data_raw)
		ret = image_zero(f, q->data, goff, bytes, unmap ? ZERO_MAY_UNMAP : 0);
	else if (bytes && unmap && q->discard_host)
		(void)image_discard(f, q->data, goff, bytes); /* a hint */
	else
		return 0;
	q->written++;
	return ret;
}
