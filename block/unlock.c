/* Finding passphrases and unlocking images; see unlock.h. */
#include "block/unlock.h"

#include "base/opts.h"
#include "block/secret.h"

#include <errno.h>

#define TRIES_MOST 3 /* wrong answers of a person */

static const struct unlock_policy nobody;

int image_unlock(struct fiber *f, struct image *img, const struct key *passphrase,
		 struct error *err)
{
	int ret;

	if (!img->locked)
		return err_set(err, -EINVAL, "Image '%s' is not locked", img->name);
	assert(img->driver->unlock);
	ret = img->driver->unlock(f, img, passphrase, err);
	if (ret == 0)
		img->locked = false;
	return ret;
}

struct image *image_first_locked(struct image *top)
{
	while (top && !top->locked)
		top = top->backing;
	return top;
}

static int required(struct error *err, const char *option)
{
	return err_set(err, -EACCES, "Parameter '%s' is required for cipher", option);
}

static int ask(struct fiber *f, const struct unlock_policy *u, const struct unlock_question *q,
	       struct key *out, struct error *err)
{
	return u->ask ? u->ask(f, u->arg, q, out, err) : -ENOTTY;
}

int unlock_passphrase(struct fiber *f, const struct unlock_policy *u, const struct unlock_wanted *w,
		      struct key *out, struct error *err)
{
	const struct unlock_question q = {.image = w->image};
	const struct key *secret;
	int ret;

	if (!u)
		u = &nobody;
	if (!w->id) {
		ret = ask(f, u, &q, out, err);
		return ret == -ENOTTY ? required(err, w->option) : ret;
	}
	ret = secrets_get(u->secrets, w->id, &secret, err);
	if (ret < 0)
		return ret;
	ret = key_set(out, secret->data, secret->bytes);
	return ret < 0 ? err_set_errno(err, ret, "Could not copy the secret") : 0;
}

/* A person may mistype. */
static int unlock_asking(struct fiber *f, struct image *img, const struct unlock_policy *u,
			 const char *option, struct error *err)
{
	int ret = -EACCES;

	for (unsigned tries = 0; tries < TRIES_MOST && ret == -EACCES; tries++) {
		struct unlock_question q = {img->name, tries, tries ? err->text : NULL};
		struct key passphrase;

		ret = ask(f, u, &q, &passphrase, err);
		if (ret == -ENOTTY)
			return required(err, option);
		if (ret < 0)
			return ret;
		ret = image_unlock(f, img, &passphrase, err);
		key_wipe(&passphrase);
	}
	return ret;
}

int image_unlock_open(struct fiber *f, struct image *img, const struct open_policy *policy,
		      const char *option, struct error *err)
{
	const struct unlock_policy *u = policy->unlock ? policy->unlock : &nobody;
	const char *id = policy->options ? opts_get(policy->options, option) : NULL;
	const struct key *secret;
	int ret;

	assert(img->locked);
	img->encrypted = true;
	if (u->when == UNLOCK_NEVER)
		return 0;
	if (id) {
		ret = secrets_get(u->secrets, id, &secret, err);
		return ret < 0 ? ret : image_unlock(f, img, secret, err);
	}
	if (u->when == UNLOCK_LATER)
		return 0;
	return unlock_asking(f, img, u, option, err);
}
