/* Key slots of LUKS1 headers: filling, erasing, what `amend` asks for.
 *
 * Order on disk: a slot's key material is durable before the header calls the
 * slot active, and overwritten before it calls it inactive.  The header spans two
 * sectors, and slot 6 lies astride: the second sector goes first, because what
 * makes a slot active is in the first. */
#include "block/crypto/lib.h"
#include "block/crypto/luks.h"

#include "base/pool.h"
#include "block/crypto/af.h"

#include <errno.h>

#define WIPES 3 /* times that key material is overwritten */

int luks_write_header(struct fiber *f, struct luks *l)
{
	int ret = l->io.write(f, l->io.arg, LUKS_SECTOR, l->head_bytes + LUKS_SECTOR,
			      sizeof(l->head_bytes) - LUKS_SECTOR);

	if (ret >= 0)
		ret = l->io.sync(f, l->io.arg);
	if (ret >= 0)
		ret = l->io.write(f, l->io.arg, 0, l->head_bytes, LUKS_SECTOR);
	return ret < 0 ? ret : l->io.sync(f, l->io.arg);
}

u32 luks_iterations(struct fiber *f, const struct luks *l, size_t key_bytes, u64 ms)
{
	double n = (double)kdf_speed(f, l->hash, key_bytes) * (double)ms / 1000.0;

	if (n < LUKS_ITERATIONS_LEAST)
		return LUKS_ITERATIONS_LEAST;
	return n > LUKS_ITERATIONS_MOST ? LUKS_ITERATIONS_MOST : (u32)n;
}

static u64 slot_place(const struct luks *l, unsigned i)
{
	return (u64)be32_get(l->head.slots[i].key_sector) * LUKS_SECTOR;
}

static bool is_active(const struct luks *l, unsigned i)
{
	return be32_get(l->head.slots[i].state) == LUKS_ACTIVE;
}

/* --- filling ----------------------------------------------------------------------- */

struct split {
	struct luks *l;
	struct cipher *cipher;
	struct key *material;
};

static int split_run(void *arg)
{
	struct split *s = arg;
	struct key split = *s->material;
	struct cipher_context *x = cipher_get(s->cipher);
	int ret;

	if (!x)
		return -ENOMEM;
	split.bytes = LUKS_STRIPES * s->l->master.bytes;
	ret = af_split(s->l->hash, &s->l->master, LUKS_STRIPES, &split);
	if (ret == 0)
		ret = cipher_run(x, true, 0, split.data, split.data, s->material->bytes);
	cipher_put(s->cipher, x);
	return ret;
}

static int write_material(struct fiber *f, struct luks *l, u64 at, struct cipher *cipher)
{
	struct key material;
	struct split s = {l, cipher, &material};
	int ret = key_new(&material, luks_material_bytes(l));

	if (ret < 0)
		return ret;
	ret = pool_call(f, split_run, &s);
	if (ret == 0)
		ret = l->io.write(f, l->io.arg, at, material.data, material.bytes);
	key_wipe(&material);
	return ret < 0 ? ret : l->io.sync(f, l->io.arg);
}

int luks_fill_slot(struct fiber *f, struct luks *l, unsigned i, const struct key *passphrase,
		   u64 iter_ms, struct error *err)
{
	struct luks_slot slot = l->head.slots[i];
	struct cipher *cipher;
	int ret;

	assert(l->master.data && i < LUKS_SLOTS);
	if (crypto_lib()->RAND_bytes(slot.salt, LUKS_SALT) != 1)
		return err_set(err, -EIO, "No random bytes for the key slot's salt");
	slot.iterations = be32_of(luks_iterations(f, l, l->master.bytes, iter_ms));
	ret = luks_slot_cipher(l, &slot, passphrase, f, &cipher);
	if (ret == 0) {
		ret = write_material(f, l, slot_place(l, i), cipher);
		cipher_free(cipher);
	}
	if (ret < 0)
		return err_set_errno(err, ret, "Could not write key slot %u", i);
	slot.state = be32_of(LUKS_ACTIVE);
	l->head.slots[i] = slot;
	return 0;
}

/* --- erasing ----------------------------------------------------------------------- */

static int erase_slot(struct fiber *f, struct luks *l, unsigned i)
{
	struct key noise;
	int ret = key_new(&noise, luks_material_bytes(l));

	for (unsigned k = 0; k < WIPES && ret == 0; k++) {
		ret = crypto_lib()->RAND_bytes(noise.data, (int)noise.bytes) == 1 ? 0 : -EIO;
		if (ret == 0)
			ret = l->io.write(f, l->io.arg, slot_place(l, i), noise.data, noise.bytes);
		if (ret >= 0)
			ret = l->io.sync(f, l->io.arg);
	}
	key_wipe(&noise);
	if (ret < 0)
		return ret;
	l->head.slots[i].state = be32_of(LUKS_INACTIVE);
	l->head.slots[i].iterations = be32_of(0);
	memset(l->head.slots[i].salt, 0, LUKS_SALT);
	return luks_write_header(f, l);
}

static unsigned count_active(const struct luks *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		n += is_active(l, i);
	return n;
}

static int opens(struct fiber *f, struct luks *l, unsigned i, const struct key *passphrase)
{
	struct key master;
	int ret = luks_try_slot(f, l, i, passphrase, &master);

	if (ret > 0)
		key_wipe(&master);
	return ret;
}

static int erase_one(struct fiber *f, struct luks *l, const struct luks_change *c,
		     struct error *err)
{
	unsigned i = (unsigned)c->slot;
	int ret = c->old ? opens(f, l, i, c->old) : 1;

	if (ret < 0)
		return err_set_errno(err, ret, "Could not read key slot %u", i);
	if (ret == 0)
		return err_set(err, -EINVAL,
			       "Given keyslot %u doesn't contain the given old password for erase "
			       "operation",
			       i);
	if (!c->force && !is_active(l, i))
		return err_set(err, -EINVAL, "Given keyslot %u is already erased (inactive) ", i);
	if (!c->force && count_active(l) == 1)
		return err_set(err, -EINVAL,
			       "Attempt to erase the only active keyslot %u which will erase all "
			       "the data in the image irreversibly - refusing operation",
			       i);
	ret = erase_slot(f, l, i);
	return ret < 0 ? err_set_errno(err, ret, "Failed to erase keyslot %u", i) : 0;
}

static int erase_matching(struct fiber *f, struct luks *l, const struct luks_change *c,
			  struct error *err)
{
	bool match[LUKS_SLOTS] = {0};
	unsigned n = 0;
	int ret = 0;

	for (unsigned i = 0; i < LUKS_SLOTS && ret >= 0; i++) {
		ret = opens(f, l, i, c->old);
		match[i] = ret > 0;
		n += match[i];
	}
	if (ret < 0)
		return err_set_errno(err, ret, "Could not read the key slots");
	if (!n)
		return err_set(err, -EINVAL,
			       "No keyslots match given (old) password for erase operation");
	if (!c->force && n == count_active(l))
		return err_set(err, -EINVAL,
			       "All the active keyslots match the (old) password that was given "
			       "and erasing them will erase all the data in the image "
			       "irreversibly - refusing operation");
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		ret = match[i] ? erase_slot(f, l, i) : 0;
		if (ret < 0)
			return err_set_errno(err, ret, "Failed to erase keyslot %u", i);
	}
	return 0;
}

static int erase(struct fiber *f, struct luks *l, const struct luks_change *c, struct error *err)
{
	if (c->slot >= 0)
		return erase_one(f, l, c, err);
	if (c->old)
		return erase_matching(f, l, c, err);
	return err_set(err, -EINVAL,
		       "To erase keyslot(s), either explicit keyslot index or the password "
		       "currently contained in them must be given");
}

static int activate(struct fiber *f, struct luks *l, const struct luks_change *c, struct error *err)
{
	unsigned i = 0;
	int ret;

	if (c->slot >= 0) {
		i = (unsigned)c->slot;
		if (!c->force && is_active(l, i))
			return err_set(err, -EINVAL,
				       "Refusing to overwrite active keyslot %u - please erase it "
				       "first",
				       i);
	} else {
		while (i < LUKS_SLOTS && is_active(l, i))
			i++;
		if (i == LUKS_SLOTS)
			return err_set(err, -ENOSPC,
				       "Can't add a keyslot - all keyslots are in use");
	}
	ret = luks_fill_slot(f, l, i, c->new, c->iter_ms, err);
	if (ret < 0)
		return ret;
	ret = luks_write_header(f, l);
	return ret < 0 ? err_set_errno(err, ret, "Could not write the LUKS header") : 0;
}

int luks_change_slots(struct fiber *f, struct luks *l, const struct luks_change *c,
		      struct error *err)
{
	assert(l->master.data);
	if (c->slot >= LUKS_SLOTS)
		return err_set(err, -EINVAL,
			       "Invalid keyslot %d specified, must be between 0 and %d", c->slot,
			       LUKS_SLOTS - 1);
	return c->activate ? activate(f, l, c, err) : erase(f, l, c, err);
}
