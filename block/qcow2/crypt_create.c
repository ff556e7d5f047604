/* Creation of encrypted qcow2 images: options, passphrase, LUKS header.
 * Thread: the loop's. */
#include "block/qcow2/crypt.h"

#include "block/create.h"
#include "block/unlock.h"

#include <errno.h>

static bool is_on(const char *value)
{
	bool on = false;

	return value && (!strcmp(value, "y") || (parse_bool(value, &on) == 0 && on));
}

static int get_method(const struct opts *o, enum crypt_method *out, struct error *err)
{
	const char *format = opts_get(o, "encrypt.format");
	bool other = false;

	for (unsigned i = 0; i < o->n; i++)
		other |= !strncmp(o->v[i].name, "encrypt.", 8);
	if (opts_has(o, "encryption") && format)
		return err_set(err, -EINVAL,
			       "'encrypt.format' and its alias 'encryption' can't be used at the "
			       "same time");
	if (is_on(opts_get(o, "encryption")))
		format = "aes";
	if (!format && other)
		return err_set(err, -EINVAL, "Parameter 'encrypt.format' is missing");
	*out = !format ? CRYPT_NONE : !strcmp(format, "aes") ? CRYPT_AES : CRYPT_LUKS;
	if (*out == CRYPT_LUKS && strcmp(format, "luks"))
		return err_set(err, -EINVAL, "Parameter 'format' does not accept value '%s'",
			       format);
	return 0;
}

/* What only LUKS takes. */
static int check_aes(const struct opts *o, struct error *err)
{
	for (unsigned i = 0; i < o->n; i++) {
		const char *name = o->v[i].name;

		if (!strncmp(name, "encrypt.", 8) && strcmp(name + 8, "format") &&
		    strcmp(name + 8, "key-secret"))
			return err_set(err, -EINVAL, "Parameter '%s' is unexpected", name);
	}
	return 0;
}

int qcow2_crypt_options(struct fiber *f, const struct create_request *req,
			struct qcow2_crypt_create *out, struct error *err)
{
	const struct opts *o = &req->options;
	const struct unlock_wanted wanted = {req->name, opts_get(o, "encrypt.key-secret"),
					     "encrypt.key-secret"};
	int ret;

	*out = (struct qcow2_crypt_create){0};
	ret = get_method(o, &out->method, err);
	if (ret < 0 || out->method == CRYPT_NONE)
		return ret;
	if (out->method == CRYPT_LUKS)
		ret = luks_options_parse(&out->luks, o, "encrypt.", err);
	else
		ret = check_aes(o, err);
	/* Legacy AES stores nothing of it: who opens the image is asked. */
	if (ret == 0 && (out->method == CRYPT_LUKS || wanted.id))
		ret = unlock_passphrase(f, req->unlock, &wanted, &out->passphrase, err);
	return ret;
}

void qcow2_crypt_create_fini(struct qcow2_crypt_create *c)
{
	key_wipe(&c->passphrase);
}

int qcow2_crypt_header_bytes(const struct qcow2_crypt_create *c, u64 *bytes, struct error *err)
{
	*bytes = 0;
	if (c->method != CRYPT_LUKS)
		return 0;
	return luks_options_payload(&c->luks, bytes, err);
}

/* --- the header in a fresh file --- */

struct place {
	struct image *file;
	u64 hoff;
};

static int place_read(struct fiber *f, void *arg, u64 at, void *buf, u64 bytes)
{
	struct place *p = arg;

	return image_pread(f, p->file, p->hoff + at, buf, bytes);
}

static int place_write(struct fiber *f, void *arg, u64 at, const void *buf, u64 bytes)
{
	struct place *p = arg;

	return image_pwrite(f, p->file, p->hoff + at, buf, bytes);
}

static int place_sync(struct fiber *f, void *arg)
{
	struct place *p = arg;

	return image_flush(f, p->file);
}

int qcow2_crypt_format(struct fiber *f, const struct qcow2_crypt_create *c, struct image *file,
		       u64 hoff, struct error *err)
{
	struct place place = {file, hoff};
	const struct luks_io io = {place_read, place_write, place_sync, &place};

	return luks_format(f, &io, &c->luks, &c->passphrase, err);
}
