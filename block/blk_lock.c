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

static int unlock_first(struct fiber *f, struct blk *blk, struct blk_unlocking *u)
{
	struct image *img = image_first_locked(blk->img);
	int ret;

	if (!img)
		return err_set(&u->err, -EINVAL, "Device '%s' is not locked", blk->id);
	ret = image_unlock(f, img, &u->passphrase, &u->err);
	blk->locked = image_first_locked(blk->img) != NULL;
	return ret;
}

static int unlock(struct fiber *f, struct blk *blk, void *arg)
{
	struct blk_unlocking *u = arg;
	int ret = unlock_first(f, blk, u);

	key_wipe(&u->passphrase);
	if (u->ended)
		u->ended(u);
	return ret;
}

void blk_unlock_begin(struct blk *blk, struct blk_unlocking *u)
{
	u->err = (struct error){0};
	blk_begin(blk, &u->task, unlock, u);
}

int blk_unlock_end(struct blk_unlocking *u)
{
	int ret = blk_wait(&u->task);

	key_wipe(&u->passphrase); /* if it did not come that far */
	return ret;
}

static int is_encrypted(struct fiber *f, struct blk *blk, void *arg)
{
	return blk->img && blk->img->encrypted;
}

bool blk_is_encrypted(struct blk *blk)
{
	return blk_run(blk, is_encrypted, NULL) > 0;
}
