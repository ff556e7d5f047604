/* Drives whose images are encrypted: which image waits for its passphrase, and
 * giving it.  Thread: the caller's, which waits; the images' loop does the work. */
#include "block/blk_control.h"

#include "block/blk_internal.h"
#include "block/unlock.h"

#include <errno.h>

static int find_locked(struct fiber *f, struct blk *blk, void *arg)
{
	const struct image *img = image_first_locked(blk->img);
	char **name = arg;

	*name = img ? xstrdup(img->name) : NULL;
	return 0;
}

char *blk_locked_image(struct blk *blk)
{
	char *name;

	blk_run(blk, find_locked, &name);
	return name;
}

struct unlock_call {
	const struct key *passphrase;
	struct error *err;
};

static int unlock(struct fiber *f, struct blk *blk, void *arg)
{
	const struct unlock_call *c = arg;
	struct image *img = image_first_locked(blk->img);
	int ret;

	if (!img)
		return err_set(c->err, -EINVAL, "Device '%s' is not locked", blk->id);
	ret = image_unlock(f, img, c->passphrase, c->err);
	blk->locked = image_first_locked(blk->img) != NULL;
	return ret;
}

int blk_unlock(struct blk *blk, const struct key *passphrase, struct error *err)
{
	struct unlock_call c = {passphrase, err};

	return blk_run(blk, unlock, &c);
}

static int is_encrypted(struct fiber *f, struct blk *blk, void *arg)
{
	return blk->img && blk->img->encrypted;
}

bool blk_is_encrypted(struct blk *blk)
{
	return blk_run(blk, is_encrypted, NULL) > 0;
}
