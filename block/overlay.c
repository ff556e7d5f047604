/* External snapshots of drives in use; see overlay.h.
 *
 * The new images are made, synced and opened while the guest goes on.  Then all
 * drives are drained, their old tops settle (all is durable, they are read-only),
 * and the tops change, which cannot fail.  Until a new image holds a write, both
 * names show the same; a crash at any time leaves both chains whole.
 * Thread: the caller's, which waits; what touches images runs on their loops. */
#include "block/overlay.h"

#include "base/log.h"
#include "block/blk_internal.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/job.h"
#include "block/file.h"
#include "block/unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct step {
	struct overlay_change *c;
	struct error *err;
};

/* --- the new image ------------------------------------------------------------ */

static bool takes_backing(const struct image_driver *driver)
{
	return driver->graph && driver->graph->set_backing;
}

static int prepare(struct fiber *f, struct create_request *req, const struct image *old,
		   struct error *err)
{
	AUTO_FREE char *name = image_backing_name(old, req->name);
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)old->bytes);
	req->unsafe_backing = true; /* it is open */
	opts_set(&req->options, "size", text);
	opts_set(&req->options, "backing_file", name);
	opts_set(&req->options, "backing_fmt", old->driver->name);
	req->driver = image_driver_find(req->format);
	if (req->driver && req->driver->create && !takes_backing(req->driver))
		return err_set(err, -ENOTSUP, "Backing file not supported for file format '%s'",
			       req->format);
	return image_create_prepare(f, req, err);
}

/* A fresh name is durable with its folder only. */
static int sync_folder(const char *file)
{
	const char *slash = strrchr(file, '/');
	AUTO_FREE char *folder = slash ? xasprintf("%.*s", (int)(slash - file) + 1, file) : NULL;
	int fd = open(folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	/* Some file systems have no such thing. */
	if (fsync(fd) && errno != EINVAL)
		ret = -errno;
	close(fd);
	return ret;
}

static int make(struct fiber *f, struct overlay_change *c, struct error *err)
{
	struct create_request req;
	bool was_there = access(c->file, F_OK) == 0;
	int ret;

	image_create_init(&req, c->format ? c->format : "qcow2", c->file);
	ret = prepare(f, &req, c->old, err);
	if (ret == 0) {
		AUTO_FREE char *text = image_create_text(&req);

		c->text = xasprintf("Formatting '%s', %s", c->file, text);
		ret = image_create_run(f, &req, err);
	}
	image_create_fini(&req);
	if (ret < 0)
		return ret;
	c->made = !was_there;
	ret = sync_folder(c->file);
	return ret < 0 ? err_set_errno(err, ret, "Could not write to the folder of '%s'", c->file)
		       : 0;
}

static int open_new(struct fiber *f, struct overlay_change *c, struct error *err)
{
	struct open_policy policy = c->blk->policy;
	int ret;

	policy.format = c->format ? c->format : "qcow2";
	policy.no_backing = true;
	ret = image_open(f, &c->img, c->file, &policy, err);
	if (ret == 0 && c->img->locked && c->passphrase)
		ret = image_unlock(f, c->img, c->passphrase, err);
	if (ret < 0)
		return ret;
	c->locked = c->img->locked;
	if (c->locked)
		return err_set(err, -EACCES, "'%s' is encrypted", c->file);
	if (!takes_backing(c->img->driver))
		return err_set(err, -ENOTSUP, "The overlay does not support backing images");
	return 0;
}

static bool is_encrypted(const struct image *img)
{
	const struct image_graph_ops *graph = img->driver->graph;

	return graph && graph->is_encrypted && graph->is_encrypted(img);
}

static int make_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct step *s = arg;
	struct overlay_change *c = s->c;
	int ret;

	if (job_none(blk, s->err) < 0)
		return s->err->code;
	c->old = blk->img;
	if (!c->old)
		return err_set(s->err, -ENOMEDIUM, "Device '%s' has no medium", blk->id);
	if (image_first_locked(c->old))
		return err_set(s->err, -EACCES, "'%s' (%s) is encrypted", blk->id, blk->file);
	/* The bulk of what is pending, while requests go on. */
	if (image_flush(f, c->old) < 0)
		return err_set(s->err, -EIO, "An IO error has occurred");
	ret = c->reuse ? 0 : make(f, c, s->err);
	if (ret == 0)
		ret = open_new(f, c, s->err);
	if (ret == 0 && is_encrypted(c->old) && !is_encrypted(c->img))
		c->warning = xasprintf("%s: '%s' is not encrypted, but what is behind it is",
				       blk->id, c->file);
	return ret;
}

/* --- the moment ---------------------------------------------------------------- */

static int settle_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct step *s = arg;
	int ret;

	assert(blk->drains && blk->img == s->c->old);
	if (!s->c->old->writable)
		return 0;
	ret = image_set_writable(f, s->c->old, false, s->err);
	s->c->settled = ret == 0;
	return ret;
}

static int switch_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct overlay_change *c = arg;

	image_set_backing(c->img, c->old);
	blk_switch(blk, c->img);
	c->img = NULL; /* the drive's now */
	return 0;
}

static int undo_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct overlay_change *c = arg;
	struct error err;

	if (c->settled && image_set_writable(f, c->old, true, &err) < 0)
		log_error("%s: %s", blk->id, err.text);
	image_close(f, c->img);
	c->img = NULL;
	if (c->made)
		unlink(c->file);
	return 0;
}

static int take(struct overlay_change *c, blk_fn *fn, struct error *err)
{
	struct step s = {c, err};

	return blk_run(c->blk, fn, &s);
}

/* The new images are open, or (ret < 0) some may be. */
static int put(struct overlay_change *v, unsigned n, int ret, struct error *err)
{
	for (unsigned i = 0; i < n && ret == 0; i++) {
		blk_drain_begin(v[i].blk);
		v[i].drained = true;
	}
	for (unsigned i = 0; i < n && ret == 0; i++)
		ret = take(&v[i], settle_fiber, err);
	for (unsigned i = 0; i < n; i++)
		blk_run(v[i].blk, ret == 0 ? switch_fiber : undo_fiber, &v[i]);
	for (unsigned i = 0; i < n; i++)
		if (v[i].drained)
			blk_drain_end(v[i].blk);
	return ret;
}

int overlays_put(struct overlay_change *v, unsigned n, struct error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < n && ret == 0; i++)
		ret = take(&v[i], make_fiber, err);
	return put(v, n, ret, err);
}

void overlay_change_fini(struct overlay_change *c)
{
	free(c->text);
	free(c->warning);
	c->text = c->warning = NULL;
}

/* --- a passphrase first ---------------------------------------------------------- */

static int unlock_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct overlay_unlocking *u = arg;
	struct step s = {&u->c, &u->err};
	int ret;

	u->c.passphrase = &u->passphrase;
	ret = make_fiber(f, blk, &s);
	u->c.passphrase = NULL;
	key_wipe(&u->passphrase);
	u->ended(u);
	return ret;
}

void overlay_unlock_begin(struct overlay_unlocking *u)
{
	assert(u->c.reuse && u->ended);
	u->err = (struct error){0};
	blk_begin(u->c.blk, &u->task, unlock_fiber, u);
}

/* Requests went on, and so did whoever changes images. */
static int is_as_it_was_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct step *s = arg;

	if (job_none(blk, s->err) < 0)
		return s->err->code;
	return blk->img == s->c->old
		       ? 0
		       : err_set(s->err, -EBUSY, "Device '%s' has another image now", blk->id);
}

int overlay_unlock_end(struct overlay_unlocking *u, bool use)
{
	int ret = blk_wait(&u->task);

	key_wipe(&u->passphrase); /* if it did not come that far */
	if (ret == 0 && !use)
		ret = -ECANCELED;
	if (ret == 0)
		ret = take(&u->c, is_as_it_was_fiber, &u->err);
	return put(&u->c, 1, ret, &u->err);
}

/* --- going back ----------------------------------------------------------------- */

static int revert(struct fiber *f, struct blk *blk, struct error *err)
{
	struct image *top = blk->img;
	int ret;

	/* Fails while a snapshot of the machine is being taken from it. */
	ret = image_set_writable(f, top, false, err);
	if (ret == 0)
		ret = image_set_writable(f, top, true, err);
	if (ret < 0)
		return ret;
	ret = top->driver->graph->make_empty(f, top, false);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not empty '%s'", top->name);
	if (top->bytes != top->backing->bytes)
		ret = image_resize(f, top, top->backing->bytes, err);
	blk_image_changed(blk);
	return ret;
}

static int revert_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct error *err = arg;
	struct image *top = blk->img;
	int ret = job_none(blk, err);

	if (ret < 0)
		return ret;
	if (!top)
		return err_set(err, -ENOMEDIUM, "Device '%s' has no medium", blk->id);
	if (blk->readonly)
		return err_set(err, -EROFS, "Device '%s' is read only", blk->id);
	if (!top->backing || !top->driver->graph || !top->driver->graph->make_empty)
		return err_set(err, -ENOTSUP, "Device '%s' has no image behind its image", blk->id);
	blk_drain_fiber(f, blk);
	ret = revert(f, blk, err);
	blk_drain_stop(blk);
	return ret;
}

int overlay_revert(struct blk *blk, struct error *err)
{
	return blk_run(blk, revert_fiber, err);
}
