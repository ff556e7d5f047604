/* Images of an open chain that become writable, or read-only, where they stand.
 *
 * The top of a chain becomes a backing image when a snapshot is taken over it, a
 * backing image is written to while a commit runs.  Locks on the host file change
 * with it, so that other programs may do what they may with any backing file.
 * Thread: the image's loop; no request for the image is under way. */
#define _GNU_SOURCE
#include "base/io.h"
#include "base/loop.h"
#include "block/driver.h"
#include "block/file_internal.h"
#include "block/graph.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* A descriptor that may write, in the place of one that may not: same number. */
static int reopen(struct host_file *file, struct error *err)
{
	char path[40];
	int fd, ret;

	/* By its descriptor: the name may be gone, or another file's by now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	fd = sys_open(path,
		      O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC | (file->direct ? O_DIRECT : 0),
		      0);
	if (fd < 0)
		return err_set_errno(err, fd, "Could not open '%s'", file->img.name);
	file_unlock(file->fd);
	ret = dup3(fd, file->fd, O_CLOEXEC) < 0 ? -errno : 0;
	sys_close(fd);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not open '%s'", file->img.name);
	file->may_write = true;
	return 0;
}

/* Give back what is too much. */
static int cut(struct host_file *file, struct error *err)
{
	if (!file_is_too_long(file))
		return 0;
	if (ftruncate(file->fd, (off_t)file->img.bytes))
		return err_set_errno(err, -errno, "Could not resize '%s'", file->img.name);
	return 0;
}

static int lock_as(struct host_file *file, bool writable, struct error *err)
{
	struct open_policy policy = {
		.writable = writable, .share_writers = file->share, .no_lock = file->no_lock};

	file_unlock(file->fd);
	return file_lock(file->fd, file->img.name, &policy, err);
}

int file_set_writable(struct fiber *f, struct image *img, bool writable, struct error *err)
{
	struct host_file *file = container_of(img, struct host_file, img);
	int ret = 0;

	assert(img->driver == &file_driver);
	if (!file->may_write && writable)
		ret = reopen(file, err);
	else if (!writable)
		ret = cut(file, err);
	if (ret < 0)
		return ret;
	ret = lock_as(file, writable, err);
	if (ret < 0)
		(void)lock_as(file, !writable, &(struct error){0});
	return ret;
}

/* The file under it, or what serves for one. */
static int set_below(struct fiber *f, struct image *img, bool writable, struct error *err)
{
	if (img->below)
		return image_set_writable(f, img->below, writable, err);
	if (img->driver == &file_driver)
		return file_set_writable(f, img, writable, err);
	if (writable && img->driver->graph && img->driver->graph->begin_writing)
		return 0;
	return writable ? err_set(err, -ENOTSUP, "Block node '%s' is read-only", img->name) : 0;
}

static int let_write(struct fiber *f, struct image *img, struct error *err)
{
	const struct image_graph_ops *graph = img->driver->graph;
	int ret = set_below(f, img, true, err);

	if (ret < 0)
		return ret;
	img->writable = true;
	loop_note_change(img->loop);
	if (graph && graph->begin_writing)
		ret = graph->begin_writing(f, img, err);
	if (ret < 0) {
		img->writable = false;
		loop_note_change(img->loop);
		(void)set_below(f, img, false, &(struct error){0});
	}
	return ret;
}

static int let_no_longer_write(struct fiber *f, struct image *img, struct error *err)
{
	const struct image_graph_ops *graph = img->driver->graph;
	int ret = graph && graph->settle ? graph->settle(f, img) : 0;

	if (ret == 0)
		ret = image_flush(f, img);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not write to '%s'", img->name);
	ret = set_below(f, img, false, err);
	if (ret < 0)
		return ret;
	img->writable = false;
	loop_note_change(img->loop);
	/* Somebody may have come while the file was written. */
	ret = graph && graph->settle ? graph->settle(f, img) : 0;
	if (ret < 0) {
		(void)let_write(f, img, err);
		return err_set_errno(err, ret, "Could not write to '%s'", img->name);
	}
	return 0;
}

int image_set_writable(struct fiber *f, struct image *img, bool writable, struct error *err)
{
	if (img->writable == writable)
		return 0;
	return writable ? let_write(f, img, err) : let_no_longer_write(f, img, err);
}
