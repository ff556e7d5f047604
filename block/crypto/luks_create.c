/* Making LUKS1 headers: options, layout, random keys; see luks.h.
 *
 * Layout as other tools make it: key material from 4 KiB on, each slot's rounded
 * up to 4 KiB, the payload right behind. */
#include "block/crypto/lib.h"
#include "block/crypto/luks.h"

#include "block/crypto/kdf.h"

#include <errno.h>
#include <stdio.h>

struct cipher_name {
	const char *name, *in_header;
	u32 key_bytes; /* of one key; 0: known to the reference, not to libcrypto */
};

static const struct cipher_name ciphers[] = {
	{"aes-128", "aes", 16},	  {"aes-192", "aes", 24},   {"aes-256", "aes", 32},
	{"des", "des", 0},	  {"3des", "3des", 0},	    {"cast5-128", "cast5", 0},
	{"serpent-128", NULL, 0}, {"serpent-192", NULL, 0}, {"serpent-256", NULL, 0},
	{"twofish-128", NULL, 0}, {"twofish-192", NULL, 0}, {"twofish-256", NULL, 0},
};
static const char *const modes[] = {"ecb", "cbc", "ctr", "xts", NULL};
static const char *const ivgens[] = {"plain", "plain64", "essiv", NULL};

static const struct cipher_name *find_cipher(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++)
		if (!strcmp(ciphers[i].name, name))
			return &ciphers[i];
	return NULL;
}

/* --- options ---------------------------------------------------------------------- */

static const char *get(const struct opts *o, const char *prefix, const char *name)
{
	char full[64];

	snprintf(full, sizeof(full), "%s%s", prefix, name);
	return opts_get(o, full);
}

static int refuse(struct error *err, const char *name, const char *value)
{
	return err_set(err, -EINVAL, "Parameter '%s' does not accept value '%s'", name, value);
}

static int judge_options(const struct luks_options *o, struct error *err)
{
	if (o->cipher_alg && !find_cipher(o->cipher_alg))
		return refuse(err, "cipher-alg", o->cipher_alg);
	if (o->cipher_mode && parse_choice(o->cipher_mode, modes) < 0)
		return refuse(err, "cipher-mode", o->cipher_mode);
	if (o->ivgen_alg && parse_choice(o->ivgen_alg, ivgens) < 0)
		return refuse(err, "ivgen-alg", o->ivgen_alg);
	if (o->ivgen_hash_alg && !hash_find(o->ivgen_hash_alg))
		return refuse(err, "ivgen-hash-alg", o->ivgen_hash_alg);
	if (o->hash_alg && !hash_find(o->hash_alg))
		return refuse(err, "hash-alg", o->hash_alg);
	if (o->cipher_alg && !find_cipher(o->cipher_alg)->key_bytes)
		return err_set(err, -ENOTSUP, "Algorithm '%s' not supported", o->cipher_alg);
	return 0;
}

int luks_options_parse(struct luks_options *out, const struct opts *o, const char *prefix,
		       struct error *err)
{
	const char *iter = get(o, prefix, "iter-time");

	*out = (struct luks_options){
		.cipher_alg = get(o, prefix, "cipher-alg"),
		.cipher_mode = get(o, prefix, "cipher-mode"),
		.ivgen_alg = get(o, prefix, "ivgen-alg"),
		.ivgen_hash_alg = get(o, prefix, "ivgen-hash-alg"),
		.hash_alg = get(o, prefix, "hash-alg"),
		.iter_ms = LUKS_ITER_MS_DEFAULT,
	};
	if (iter && parse_u64(iter, &out->iter_ms) < 0)
		return err_set(err, -EINVAL, "Parameter '%siter-time' expects a number", prefix);
	return judge_options(out, err);
}

/* --- the header --------------------------------------------------------------------- */

static void make_uuid(char *text)
{
	u8 b[16];

	if (crypto_lib()->RAND_bytes(b, sizeof(b)) != 1)
		memset(b, 0, sizeof(b));
	b[6] = (u8)((b[6] & 0x0f) | 0x40); /* RFC 9562: version 4, random */
	b[8] = (u8)((b[8] & 0x3f) | 0x80);
	snprintf(text, LUKS_UUID,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		 b[15]);
}

/* Slots one behind the other; the payload behind the last. */
static void place_slots(struct luks_header *h)
{
	u64 sectors = DIV_ROUND_UP((u64)be32_get(h->key_bytes) * LUKS_STRIPES, LUKS_SECTOR);
	u64 at = LUKS_FIRST_SLOT_SECTOR;

	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		h->slots[i].state = be32_of(LUKS_INACTIVE);
		h->slots[i].key_sector = be32_of((u32)at);
		h->slots[i].stripes = be32_of(LUKS_STRIPES);
		at += align_up(sectors, LUKS_ALIGN_SECTORS);
	}
	h->payload_sector = be32_of((u32)at);
}

/* All but what is random. */
static int fill_header(struct luks *l, const struct luks_options *o, struct error *err)
{
	const char *alg = o->cipher_alg ? o->cipher_alg : "aes-256";
	const char *mode = o->cipher_mode ? o->cipher_mode : "xts";
	const char *ivgen = o->ivgen_alg ? o->ivgen_alg : "plain64";
	const char *hash = o->hash_alg ? o->hash_alg : "sha256";
	const struct cipher_name *cipher = find_cipher(alg);
	bool essiv = !strcmp(ivgen, "essiv");
	struct luks_header *h = &l->head;

	if (!cipher || !cipher->key_bytes)
		return err_set(err, -ENOTSUP, "Algorithm '%s' not supported", alg);
	memcpy(h->magic, LUKS_MAGIC, LUKS_MAGIC_BYTES);
	h->version = be16_of(1);
	snprintf(h->cipher_name, sizeof(h->cipher_name), "%s", cipher->in_header);
	snprintf(h->cipher_mode, sizeof(h->cipher_mode), "%s-%s%s%s", mode, ivgen, essiv ? ":" : "",
		 !essiv		     ? ""
		 : o->ivgen_hash_alg ? o->ivgen_hash_alg
				     : "sha256");
	snprintf(h->hash_spec, sizeof(h->hash_spec), "%s", hash);
	h->key_bytes = be32_of(cipher->key_bytes * (strcmp(mode, "xts") ? 1 : 2));
	h->digest_iterations = be32_of(LUKS_ITERATIONS_LEAST);
	place_slots(h);
	return luks_judge(l, err);
}

int luks_options_payload(const struct luks_options *o, u64 *bytes, struct error *err)
{
	struct luks *l = xnew(struct luks);
	int ret = fill_header(l, o, err);

	*bytes = luks_payload_bytes(l);
	luks_free(l);
	return ret;
}

/* A random master key, and its digest. */
static int make_master(struct fiber *f, struct luks *l, u64 iter_ms)
{
	struct luks_header *h = &l->head;
	struct kdf kdf = {.hash = l->hash,
			  .password = &l->master,
			  .salt = h->digest_salt,
			  .salt_bytes = LUKS_SALT};
	int ret = key_new(&l->master, be32_get(h->key_bytes));

	if (ret < 0)
		return ret;
	if (crypto_lib()->RAND_priv_bytes(l->master.data, (int)l->master.bytes) != 1 ||
	    crypto_lib()->RAND_bytes(h->digest_salt, LUKS_SALT) != 1)
		return -EIO;
	/* An eighth of what a passphrase takes, as cryptsetup does. */
	kdf.iterations = luks_iterations(f, l, LUKS_DIGEST, iter_ms / 8);
	h->digest_iterations = be32_of(kdf.iterations);
	return kdf_run(f, &kdf, h->digest, LUKS_DIGEST);
}

int luks_format(struct fiber *f, const struct luks_io *io, const struct luks_options *o,
		const struct key *passphrase, struct error *err)
{
	struct luks *l = xnew(struct luks);
	int ret;

	l->io = *io;
	ret = fill_header(l, o, err);
	if (ret < 0)
		goto out_free;
	make_uuid(l->head.uuid);
	ret = make_master(f, l, o->iter_ms);
	if (ret < 0)
		err_set_errno(err, ret, "Could not make the master key");
	/* Refuses what the key itself cannot be used with, before all is written. */
	if (ret == 0)
		ret = cipher_new(&l->cipher, &l->spec, &l->master, err);
	if (ret == 0)
		ret = luks_fill_slot(f, l, 0, passphrase, o->iter_ms, err);
	if (ret == 0) {
		ret = luks_write_header(f, l);
		if (ret < 0)
			err_set_errno(err, ret, "Could not write the LUKS header");
	}
out_free:
	luks_free(l);
	return ret;
}
