/* Reading LUKS1 headers and opening them with a passphrase; see luks.h.
 *
 * LUKS1 On-Disk Format Specification 1.2.3.  Whoever made the image chose every
 * field: each is judged before it is used.  Iteration counts are bounded
 * (LUKS_ITERATIONS_MOST), key material has a fixed number of stripes, slots
 * overlap neither one another, nor the header, nor the payload. */
#include "block/crypto/luks.h"

#include "base/io.h"
#include "base/pool.h"
#include "block/crypto/af.h"

#include <errno.h>
#include <stdio.h>

bool luks_probe(const u8 *head, size_t bytes)
{
	return bytes >= 8 && !memcmp(head, LUKS_MAGIC, LUKS_MAGIC_BYTES) &&
	       load_be16(head + LUKS_MAGIC_BYTES) == 1;
}

/* --- judging ----------------------------------------------------------------------- */

static bool is_terminated(const char *field)
{
	return memchr(field, 0, LUKS_NAME_BYTES);
}

static int judge_texts(const struct luks_header *h, struct error *err)
{
	if (memcmp(h->magic, LUKS_MAGIC, LUKS_MAGIC_BYTES))
		return err_set(err, -EINVAL, "Volume is not in LUKS format");
	if (be16_get(h->version) != 1)
		return err_set(err, -ENOTSUP, "LUKS version %u is not supported",
			       be16_get(h->version));
	if (!is_terminated(h->cipher_name))
		return err_set(err, -EINVAL, "LUKS header cipher name is not NUL terminated");
	if (!is_terminated(h->cipher_mode))
		return err_set(err, -EINVAL, "LUKS header cipher mode is not NUL terminated");
	if (!is_terminated(h->hash_spec))
		return err_set(err, -EINVAL, "LUKS header hash spec is not NUL terminated");
	return 0;
}

u64 luks_material_bytes(const struct luks *l)
{
	return align_up((u64)be32_get(l->head.key_bytes) * LUKS_STRIPES, LUKS_SECTOR);
}

static bool overlaps(u64 a, u64 a_len, u64 b, u64 b_len)
{
	return a < b + b_len && b < a + a_len;
}

static int judge_slot(const struct luks *l, unsigned i, struct error *err)
{
	const struct luks_slot *s = &l->head.slots[i];
	u64 start = be32_get(s->key_sector), sectors = luks_material_bytes(l) / LUKS_SECTOR;
	u32 state = be32_get(s->state), stripes = be32_get(s->stripes);

	if (stripes != LUKS_STRIPES)
		return err_set(err, -EINVAL, "Keyslot %u is corrupted (stripes %d != %d)", i,
			       (int)stripes, LUKS_STRIPES);
	if (start < DIV_ROUND_UP(sizeof(l->head), LUKS_SECTOR))
		return err_set(err, -EINVAL, "Keyslot %u is overlapping with the LUKS header", i);
	if (state != LUKS_ACTIVE && state != LUKS_INACTIVE)
		return err_set(err, -EINVAL, "Keyslot %u state (active/disable) is corrupted", i);
	if (state == LUKS_ACTIVE && !be32_get(s->iterations))
		return err_set(err, -EINVAL, "Keyslot %u iteration count is zero", i);
	if (state == LUKS_ACTIVE && be32_get(s->iterations) > LUKS_ITERATIONS_MOST)
		return err_set(err, -ENOTSUP,
			       "Keyslot %u iteration count is %u, expected at most %u", i,
			       be32_get(s->iterations), LUKS_ITERATIONS_MOST);
	if (start + sectors > be32_get(l->head.payload_sector))
		return err_set(err, -EINVAL, "Keyslot %u is overlapping with the encrypted payload",
			       i);
	for (unsigned k = i + 1; k < LUKS_SLOTS; k++)
		if (overlaps(start, sectors, be32_get(l->head.slots[k].key_sector), sectors))
			return err_set(err, -EINVAL,
				       "Keyslots %u and %u are overlapping in the header", i, k);
	return 0;
}

static int judge_places(const struct luks *l, struct error *err)
{
	int ret = 0;

	if (be32_get(l->head.payload_sector) < DIV_ROUND_UP(sizeof(l->head), LUKS_SECTOR))
		return err_set(err, -EINVAL, "LUKS payload is overlapping with the header");
	if (!be32_get(l->head.digest_iterations))
		return err_set(err, -EINVAL, "LUKS key iteration count is zero");
	if (be32_get(l->head.digest_iterations) > LUKS_ITERATIONS_MOST)
		return err_set(err, -ENOTSUP, "LUKS key iteration count is %u, expected at most %u",
			       be32_get(l->head.digest_iterations), LUKS_ITERATIONS_MOST);
	for (unsigned i = 0; i < LUKS_SLOTS && ret == 0; i++)
		ret = judge_slot(l, i, err);
	return ret;
}

static const char *const mode_names[] = {[CIPHER_ECB] = "ecb",
					 [CIPHER_CBC] = "cbc",
					 [CIPHER_CTR] = "ctr",
					 [CIPHER_XTS] = "xts",
					 NULL};
static const char *const iv_names[] = {
	[IV_PLAIN] = "plain", [IV_PLAIN64] = "plain64", [IV_ESSIV] = "essiv", NULL};

const char *luks_mode_name(const struct luks *l)
{
	return mode_names[l->spec.mode];
}

const char *luks_ivgen_name(const struct luks *l)
{
	return iv_names[l->spec.iv];
}

/* "xts-plain64", "cbc-essiv:sha256" */
static int judge_mode(struct luks *l, struct error *err)
{
	char text[LUKS_NAME_BYTES], *iv, *hash;
	int mode, kind;

	memcpy(text, l->head.cipher_mode, sizeof(text));
	iv = strchr(text, '-');
	if (!iv)
		return err_set(err, -EINVAL, "Unexpected cipher mode string format '%s'", text);
	*iv++ = 0;
	hash = strchr(iv, ':');
	if (hash)
		*hash++ = 0;
	if (hash && !hash_find(hash))
		return err_set(err, -ENOTSUP, "Hash algorithm '%s' not supported", hash);
	mode = parse_choice(text, mode_names);
	if (mode < 0)
		return err_set(err, -ENOTSUP, "Cipher mode '%s' not supported", text);
	kind = parse_choice(iv, iv_names);
	if (kind < 0)
		return err_set(err, -ENOTSUP, "IV generator '%s' not supported", iv);
	if (kind == IV_ESSIV && !hash)
		return err_set(err, -EINVAL, "IV generator 'essiv' without a hash");
	l->spec.mode = (enum cipher_mode)mode;
	l->spec.iv = (enum cipher_iv)kind;
	if (kind == IV_ESSIV)
		strcpy(l->essiv_hash, hash);
	l->spec.essiv_hash = l->essiv_hash;
	return 0;
}

int luks_judge(struct luks *l, struct error *err)
{
	u32 key_bytes = be32_get(l->head.key_bytes), one;
	int ret = judge_texts(&l->head, err);

	if (ret == 0)
		ret = judge_places(l, err);
	if (ret == 0)
		ret = judge_mode(l, err);
	if (ret < 0)
		return ret;
	l->hash = hash_find(l->head.hash_spec);
	if (!l->hash)
		return err_set(err, -ENOTSUP, "Hash algorithm '%s' not supported",
			       l->head.hash_spec);
	one = l->spec.mode == CIPHER_XTS ? key_bytes / 2 : key_bytes;
	if (strcmp(l->head.cipher_name, "aes") || !cipher_key_fits(l->spec.mode, key_bytes))
		return err_set(err, -ENOTSUP, "Algorithm '%s' with key size %u bytes not supported",
			       l->head.cipher_name, one);
	snprintf(l->cipher_alg, sizeof(l->cipher_alg), "aes-%u", one * 8);
	return 0;
}

int luks_load(struct fiber *f, struct luks **out, const struct luks_io *io, struct error *err)
{
	struct luks *l = xnew(struct luks);
	int ret = io->read(f, io->arg, 0, l->head_bytes, sizeof(l->head_bytes));

	l->io = *io;
	if (ret < 0)
		err_set_errno(err, ret, "Unable to read LUKS header");
	else
		ret = luks_judge(l, err);
	if (ret < 0) {
		luks_free(l);
		return ret;
	}
	*out = l;
	return 0;
}

void luks_free(struct luks *l)
{
	if (!l)
		return;
	key_wipe(&l->master);
	cipher_free(l->cipher);
	free(l);
}

/* --- opening ------------------------------------------------------------------------ */

/* The cipher that a slot's key material is under: its sectors count from 0. */
int luks_slot_cipher(struct luks *l, const struct luks_slot *slot, const struct key *passphrase,
		     struct fiber *f, struct cipher **out)
{
	struct kdf kdf = {.hash = l->hash,
			  .password = passphrase,
			  .salt = slot->salt,
			  .salt_bytes = LUKS_SALT,
			  .iterations = be32_get(slot->iterations)};
	struct error ignored = {0};
	struct key key;
	int ret = key_new(&key, be32_get(l->head.key_bytes));

	if (ret < 0)
		return ret;
	ret = kdf_run(f, &kdf, key.data, key.bytes);
	if (ret == 0)
		ret = cipher_new(out, &l->spec, &key, &ignored);
	key_wipe(&key);
	return ret;
}

/* Is it the key that the header knows the digest of? */
static int is_master(struct fiber *f, struct luks *l, const struct key *key)
{
	struct kdf kdf = {.hash = l->hash,
			  .password = key,
			  .salt = l->head.digest_salt,
			  .salt_bytes = LUKS_SALT,
			  .iterations = be32_get(l->head.digest_iterations)};
	u8 digest[LUKS_DIGEST];
	int ret = kdf_run(f, &kdf, digest, sizeof(digest));

	return ret < 0 ? ret : key_equal(digest, l->head.digest, sizeof(digest));
}

struct merge {
	struct luks *l;
	struct cipher *cipher;
	struct key *material, *key;
};

static int merge_run(void *arg)
{
	struct merge *m = arg;
	struct key split = *m->material;
	struct cipher_context *x = cipher_get(m->cipher);
	int ret;

	if (!x)
		return -ENOMEM;
	ret = cipher_run(x, false, 0, split.data, split.data, split.bytes);
	cipher_put(m->cipher, x);
	split.bytes = LUKS_STRIPES * m->key->bytes; /* without the last sector's rest */
	return ret < 0 ? ret : af_merge(m->l->hash, &split, LUKS_STRIPES, m->key);
}

static int merge_slot(struct fiber *f, struct luks *l, unsigned i, struct cipher *cipher,
		      struct key *master)
{
	u64 at = (u64)be32_get(l->head.slots[i].key_sector) * LUKS_SECTOR;
	struct key material;
	struct merge m = {l, cipher, &material, master};
	int ret = key_new(&material, luks_material_bytes(l));

	if (ret < 0)
		return ret;
	ret = l->io.read(f, l->io.arg, at, material.data, material.bytes);
	if (ret >= 0)
		ret = pool_call(f, merge_run, &m);
	key_wipe(&material);
	return ret;
}

int luks_try_slot(struct fiber *f, struct luks *l, unsigned i, const struct key *passphrase,
		  struct key *master)
{
	struct cipher *cipher;
	int ret;

	if (be32_get(l->head.slots[i].state) != LUKS_ACTIVE)
		return 0;
	ret = luks_slot_cipher(l, &l->head.slots[i], passphrase, f, &cipher);
	if (ret < 0)
		return ret;
	ret = key_new(master, be32_get(l->head.key_bytes));
	if (ret == 0) {
		ret = merge_slot(f, l, i, cipher, master);
		if (ret == 0)
			ret = is_master(f, l, master);
		if (ret <= 0)
			key_wipe(master);
	}
	cipher_free(cipher);
	return ret;
}

int luks_unlock(struct fiber *f, struct luks *l, const struct key *passphrase, struct error *err)
{
	struct key master;
	int ret = 0;

	assert(!l->master.data);
	for (unsigned i = 0; i < LUKS_SLOTS && ret == 0; i++)
		ret = luks_try_slot(f, l, i, passphrase, &master);
	if (ret < 0)
		return err_set_errno(err, ret, "Unable to read key slots");
	if (ret == 0)
		return err_set(err, -EACCES, "Invalid password, cannot unlock any keyslot");
	ret = cipher_new(&l->cipher, &l->spec, &master, err);
	if (ret == 0)
		l->master = master;
	else
		key_wipe(&master);
	return ret;
}
