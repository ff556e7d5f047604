/* Another medium in a drive: what `change` and `eject` do.
 *
 * The new image is open before the old one goes; requests wait for as long as the two
 * change places.  Thread: the caller's, which waits; the drive's loop does the work. */
#include "block/blk_control.h"

#include "base/log.h"
#include "block/blk_internal.h"
#include "block/job.h"

#include <errno.h>

struct change {
	const struct blk_medium *medium; /* NULL: take it out */
	struct error *err;
};

static int open_medium(struct fiber *f, struct blk *blk, const struct blk_medium *m,
		       struct image **out, struct error *err)
{
	struct open_policy policy = blk->policy;

	policy.writable = !blk->readonly;
	policy.format = m->format;
	return image_open(f, out, m->file, &policy, err);
}

static int change(struct fiber *f, struct blk *blk, void *arg)
{
	const struct change *c = arg;
	struct image *img = NULL, *old;
	char *file = NULL;
	int ret = 0;

	if (job_none(blk, c->err) < 0)
		return c->err->code;
	if (c->medium) {
		ret = open_medium(f, blk, c->medium, &img, c->err);
		if (ret < 0)
			return ret;
		file = xstrdup(c->medium->file);
	}
	blk_drain_fiber(f, blk);
	old = blk->img;
	free(blk->file);
	blk->file = file;
	blk_set_image(blk, img);
	blk_drain_stop(blk);
	ret = image_close(f, old);
	if (ret < 0)
		log_error("%s: closing the medium that was in it: %s", blk->id, strerror(-ret));
	return 0;
}

int blk_change_medium(struct blk *blk, const struct blk_medium *m, struct error *err)
{
	struct change c = {m, err};

	return blk_run(blk, change, &c);
}
