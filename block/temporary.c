/* Drives whose writes are thrown away; see temporary.h.
 *
 * What the guest writes is worth as much protection as what it reads: over an encrypted
 * image the overlay is one with LUKS, whose passphrase is random and forgotten as soon
 * as the overlay is open.  Thread: the image's loop. */
#include "block/temporary.h"

#include "base/opts.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/names.h"
#include "block/secret.h"
#include "block/unlock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#define KEY_ID	  "temporary"
#define KEY_BYTES 32

/* What the overlay has to know of its base. */
struct base {
	char *name;
	const char *format;
	u64 bytes;
	bool encrypted;
};

static int examine(struct fiber *f, struct base *b, const char *file,
		   const struct open_policy *policy, struct error *err)
{
	static const struct unlock_policy metadata = {.when = UNLOCK_NEVER};
	struct open_policy look = *policy;
	struct image *img;
	int ret;

	look.writable = false;
	look.unlock = &metadata;
	ret = image_open(f, &img, file, &look, err);
	if (ret < 0)
		return ret;
	b->bytes = img->bytes;
	b->format = img->driver->name;
	for (const struct image *i = img; i; i = i->backing)
		b->encrypted = b->encrypted || i->encrypted;
	b->name = name_has_protocol(img->name) ? xstrdup(img->name) : realpath(img->name, NULL);
	if (!b->name)
		ret = err_set_errno(err, -errno, "Could not open '%s'", img->name);
	(void)image_close(f, img);
	return ret;
}

/* A secret in hexadecimal, as passphrases are text. */
static int make_secret(struct secrets *s, struct error *err)
{
	u8 random[KEY_BYTES];
	char text[2 * KEY_BYTES + 1];
	struct opts o = {0};
	int ret;

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_set(err, -EIO, "cannot make a random key");
	for (unsigned i = 0; i < KEY_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	opts_set(&o, "id", KEY_ID);
	opts_set(&o, "data", text);
	ret = secrets_add(s, &o, err);
	wipe(text, sizeof(text));
	wipe(random, sizeof(random));
	opts_fini(&o);
	return ret;
}

static int create(struct fiber *f, const char *temp, const struct base *b,
		  const struct unlock_policy *own, struct error *err)
{
	struct create_request req;
	char text[32];
	int ret;

	image_create_init(&req, "qcow2", temp);
	req.cache = CACHE_UNSAFE;
	req.unsafe_backing = true; /* looked at just now */
	req.unlock = own;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)b->bytes);
	opts_set(&req.options, "size", text);
	opts_set(&req.options, "backing_file", b->name);
	if (!name_is_json(b->name))
		opts_set(&req.options, "backing_fmt", b->format);
	if (b->encrypted) {
		opts_set(&req.options, "encrypt.format", "luks");
		opts_set(&req.options, "encrypt.key-secret", KEY_ID);
		/* Nobody tries all of so many keys, however fast. */
		opts_set(&req.options, "encrypt.iter-time", "1");
	}
	ret = image_create(f, &req, err);
	image_create_fini(&req);
	return ret;
}

/* The overlay is opened with nothing but itself in mind: what was said is of its base. */
static void move_options(const struct opts *from, struct opts *to)
{
	for (unsigned i = 0; from && i < from->n; i++) {
		AUTO_FREE char *name = xasprintf("backing.%s", from->v[i].name);

		opts_add(to, name, from->v[i].value, from->v[i].bare);
	}
}

static int open_overlay(struct fiber *f, struct image **out, const char *temp,
			const struct open_policy *policy, const struct secrets *own,
			struct error *err)
{
	struct open_policy top = *policy;
	struct opts options = {0};
	int ret;

	move_options(policy->options, &options);
	top.options = &options;
	top.writable = true;
	top.format = "qcow2";
	top.cache = CACHE_UNSAFE;
	ret = image_open(f, out, temp, &top, err);
	opts_fini(&options);
	if (ret < 0 || !own->n)
		return ret;
	ret = image_unlock(f, *out, secrets_find(own, KEY_ID), err);
	if (ret < 0)
		(void)image_close(f, *out);
	return ret;
}

static int open_over(struct fiber *f, struct image **out, const struct base *b,
		     const struct open_policy *policy, struct error *err)
{
	const char *dir = getenv("TMPDIR");
	AUTO_FREE char *temp = xasprintf("%s/cowvm-XXXXXX", dir && *dir ? dir : "/var/tmp");
	struct secrets own = {0};
	const struct unlock_policy unlock = {.when = UNLOCK_NOW, .secrets = &own};
	int fd = mkstemp(temp), ret = 0;

	if (fd < 0)
		return err_set_errno(err, -errno, "cannot create the temporary file '%s'", temp);
	close(fd);
	if (b->encrypted)
		ret = make_secret(&own, err);
	if (ret == 0)
		ret = create(f, temp, b, &unlock, err);
	if (ret == 0)
		ret = open_overlay(f, out, temp, policy, &own, err);
	unlink(temp);
	secrets_fini(&own);
	return ret;
}

int temporary_open(struct fiber *f, struct image **out, const char *file,
		   const struct open_policy *policy, struct error *err)
{
	struct base b = {0};
	int ret = examine(f, &b, file, policy, err);

	if (ret == 0)
		ret = open_over(f, out, &b, policy, err);
	free(b.name);
	return ret;
}
