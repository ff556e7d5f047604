/* Secrets by id; see secret.h. */
#include "block/secret.h"

#include "base/io.h"
#include "block/crypto/wrap.h"

#include <errno.h>

#define FILE_MOST (64 * KiB)
#define KEYS	  "qom-type id data file format keyid iv"

struct secret {
	char *id;
	struct key key;
};

const struct key *secrets_find(const struct secrets *s, const char *id)
{
	for (unsigned i = 0; s && i < s->n; i++)
		if (!strcmp(s->v[i].id, id))
			return &s->v[i].key;
	return NULL;
}

int secrets_get(const struct secrets *s, const char *id, const struct key **out, struct error *err)
{
	*out = secrets_find(s, id);
	return *out ? 0 : err_set(err, -ENOENT, "No secret with id '%s'", id);
}

void secrets_fini(struct secrets *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		key_wipe(&s->v[i].key);
		free(s->v[i].id);
	}
	free(s->v);
	*s = (struct secrets){0};
}

/* --- base64, RFC 4648; line ends may stand anywhere --------------------------------- */

static int digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Bytes decoded, or -EINVAL; out has room for as many as there are characters. */
static s64 decode(const struct key *text, u8 *out)
{
	u32 bits = 0, have = 0, digits = 0, pads = 0;
	s64 n = 0;

	for (size_t i = 0; i < text->bytes; i++) {
		char c = (char)text->data[i];
		int value = digit(c);

		if (c == '\n' || c == '\r')
			continue;
		if (c == '=' && ++pads <= 2)
			continue;
		if (value < 0 || pads)
			return -EINVAL;
		bits = bits << 6 | (u32)value;
		have += 6;
		digits++;
		if (have >= 8) {
			have -= 8;
			out[n++] = (u8)(bits >> have);
		}
	}
	return (digits + pads) % 4 ? -EINVAL : n;
}

static int base64(struct key *k, struct error *err)
{
	struct key out;
	s64 n;
	int ret = key_new(&out, k->bytes);

	if (ret < 0)
		return err_set_errno(err, ret, "Could not decode the secret");
	n = decode(k, out.data);
	if (n < 0) {
		key_wipe(&out);
		return err_set(err, -EINVAL, "Base64 data contains invalid characters");
	}
	key_wipe(k);
	ret = key_set(k, out.data, (size_t)n);
	key_wipe(&out);
	return ret < 0 ? err_set_errno(err, ret, "Could not decode the secret") : 0;
}

/* --- one secret ------------------------------------------------------------------------ */

static int read_file(const char *path, struct key *out, struct error *err)
{
	struct error why = {0};
	u64 bytes;
	u8 *data;
	int ret = sys_read_file(path, FILE_MOST, &data, &bytes, &why);

	if (ret < 0)
		return err_set(err, ret, "Unable to read %s: %s", path, why.text);
	ret = key_set(out, data, bytes);
	wipe(data, bytes);
	free(data);
	return ret < 0 ? err_set_errno(err, ret, "Unable to read %s", path) : 0;
}

static int content(const struct opts *o, struct key *out, struct error *err)
{
	const char *data = opts_get(o, "data"), *file = opts_get(o, "file");
	int ret;

	if (data && file)
		return err_set(err, -EINVAL, "'file' and 'data' are mutually exclusive");
	if (!data && !file)
		return err_set(err, -EINVAL, "Either 'file' or 'data' must be provided");
	if (file)
		return read_file(file, out, err);
	ret = key_set(out, data, strlen(data));
	return ret < 0 ? err_set_errno(err, ret, "Could not store the secret") : 0;
}

static int get_iv(const struct opts *o, u8 *iv, struct error *err)
{
	const char *text = opts_get(o, "iv");
	struct key k;
	int ret;

	if (!text)
		return err_set(err, -EINVAL, "IV is required to decrypt secret");
	ret = key_set(&k, text, strlen(text));
	if (ret < 0)
		return err_set_errno(err, ret, "Could not store the IV");
	ret = base64(&k, err);
	if (ret == 0 && k.bytes != WRAP_IV_BYTES)
		ret = err_set(err, -EINVAL, "IV should be %d bytes in length not %zu",
			      WRAP_IV_BYTES, k.bytes);
	if (ret == 0)
		memcpy(iv, k.data, WRAP_IV_BYTES);
	key_wipe(&k);
	return ret;
}

static int unwrap(const struct secrets *s, const struct opts *o, struct key *k, struct error *err)
{
	const char *keyid = opts_get(o, "keyid");
	const struct key *master;
	u8 iv[WRAP_IV_BYTES];
	struct key plain;
	int ret;

	if (!keyid)
		return 0;
	ret = secrets_get(s, keyid, &master, err);
	if (ret == 0 && master->bytes != WRAP_KEY_BYTES)
		ret = err_set(err, -EINVAL, "Key should be %d bytes in length", WRAP_KEY_BYTES);
	if (ret == 0)
		ret = get_iv(o, iv, err);
	if (ret == 0)
		ret = wrap_open(k, master, iv, &plain, err);
	if (ret < 0)
		return ret;
	key_wipe(k);
	*k = plain;
	return 0;
}

static int make(const struct secrets *s, const struct opts *o, struct key *k, struct error *err)
{
	const char *format = opts_get(o, "format");
	bool is_base64 = format && !strcmp(format, "base64");
	int ret;

	if (format && !is_base64 && strcmp(format, "raw"))
		return err_set(err, -EINVAL, "Parameter 'format' does not accept value '%s'",
			       format);
	ret = content(o, k, err);
	if (ret == 0 && is_base64)
		ret = base64(k, err);
	if (ret == 0)
		ret = unwrap(s, o, k, err);
	if (ret < 0)
		key_wipe(k);
	return ret;
}

static int check_names(const struct opts *o, struct error *err)
{
	struct error ignored = {0};

	for (unsigned i = 0; i < o->n; i++) {
		const struct opts one = {&o->v[i], 1};

		if (opts_check(&one, KEYS, &ignored) < 0)
			return err_set(err, -EINVAL, "Parameter '%s' is unexpected", o->v[i].name);
	}
	return 0;
}

int secrets_add(struct secrets *s, const struct opts *o, struct error *err)
{
	const char *id = opts_get(o, "id");
	struct key k = {0};
	int ret;

	if (!id)
		return err_set(err, -EINVAL, "Parameter 'id' is missing");
	if (!is_identifier(id))
		return err_set(err, -EINVAL,
			       "Parameter 'id' expects an identifier\nIdentifiers consist of "
			       "letters, digits, '-', '.', '_', starting with a letter.");
	ret = check_names(o, err);
	if (ret == 0)
		ret = make(s, o, &k, err);
	if (ret < 0)
		return ret;
	if (secrets_find(s, id)) {
		key_wipe(&k);
		return err_set(err, -EEXIST,
			       "attempt to add duplicate property '%s' to object (type "
			       "'container')",
			       id);
	}
	s->v = xrealloc(s->v, (s->n + 1) * sizeof(*s->v));
	s->v[s->n++] = (struct secret){xstrdup(id), k};
	return 0;
}
