/* Fuzz target: LUKS1 headers.  A good container is patched (rig.h), then opened, unlocked
 * with the right passphrase, read, written, and its key slots are changed.  Iteration
 * counts are cut to what takes milliseconds. */
#include "tests/fuzz/rig.h"

#include "base/bytes.h"
#include "block/crypto/luks.h"
#include "block/driver.h"
#include "block/luks.h"
#include "block/unlock.h"

#define MOST_ITERATIONS 1000
#define PASSPHRASE	"open sesame"

struct rig {
	struct mem_disk good, disk;
	struct input in;
};

/* --- a good container ----------------------------------------------------------------- */

static int disk_read(struct fiber *f, void *arg, u64 at, void *buf, u64 bytes)
{
	return image_pread(f, arg, at, buf, bytes);
}

static int disk_write(struct fiber *f, void *arg, u64 at, const void *buf, u64 bytes)
{
	return image_pwrite(f, arg, at, buf, bytes);
}

static int disk_sync(struct fiber *f, void *arg)
{
	return image_flush(f, arg);
}

static void make(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	struct image *file = mem_image_new(fiber_loop(f), &r->good);
	const struct luks_io io = {disk_read, disk_write, disk_sync, file};
	const struct luks_options o = {.cipher_alg = "aes-128", .iter_ms = 1};
	struct error err = {0};
	struct key key = {0};
	u8 zeros[8192] = {0};

	if (key_set(&key, PASSPHRASE, strlen(PASSPHRASE)) < 0 ||
	    luks_format(f, &io, &o, &key, &err) < 0 ||
	    image_pwrite(f, file, r->good.bytes, zeros, sizeof(zeros)) < 0)
		abort();
	key_wipe(&key);
	image_close(f, file);
}

/* --- one input ------------------------------------------------------------------------- */

static void cut_iterations(be32 *count)
{
	if (be32_get(*count) > MOST_ITERATIONS)
		store_be32((u8 *)count, be32_get(*count) % MOST_ITERATIONS + 1);
}

static void cut_all(struct mem_disk *d)
{
	struct luks_header *h = (struct luks_header *)d->data;

	cut_iterations(&h->digest_iterations);
	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		cut_iterations(&h->slots[i].iterations);
}

static void change(struct fiber *f, struct luks *l, struct input *in, const struct key *key)
{
	const struct luks_change c = {.activate = input_u8(in) & 1,
				      .slot = (int)(input_u8(in) % (LUKS_SLOTS + 1)) - 1,
				      .old = key,
				      .new = key,
				      .iter_ms = 1,
				      .force = input_u8(in) & 1};
	struct error err = {0};

	if (luks_change_slots(f, l, &c, &err) < 0 && !err.text[0])
		abort();
}

static void use(struct fiber *f, struct image *img, struct input *in, const struct key *key)
{
	struct error err = {0};
	u8 buf[4096];

	(void)luks_mode_name(luks_image_header(img));
	if (image_unlock(f, img, key, &err) < 0)
		return;
	for (u32 n = input_u8(in) % 4; n; n--) {
		u64 goff = input_u24(in) * 512ull;

		(void)image_pread(f, img, goff, buf, sizeof(buf));
		(void)image_pwrite(f, img, goff, buf, 512);
	}
	if (input_u8(in) % 8 == 0)
		change(f, luks_image_header(img), in, key);
}

static void run(struct fiber *f, void *arg)
{
	const struct unlock_policy later = {.when = UNLOCK_LATER};
	struct open_policy policy = {.writable = true, .unlock = &later};
	struct rig *r = arg;
	struct error err = {0};
	struct key key = {0};
	struct image *img;

	if (key_set(&key, PASSPHRASE, strlen(PASSPHRASE)) < 0)
		abort();
	if (image_open_over(f, &img, "luks", mem_image_new(fiber_loop(f), &r->disk), &policy,
			    &err) == 0) {
		use(f, img, &r->in, &key);
		image_close(f, img);
	} else if (!err.text[0]) {
		abort();
	}
	key_wipe(&key);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
	static struct rig rig; /* the container takes a while to make */

	if (!rig.good.bytes)
		rig_run(make, &rig);
	rig.in = (struct input){data, bytes};
	rig_copy(&rig.disk, &rig.good, 4 * MiB);
	rig_patch(&rig.disk, &rig.in);
	cut_all(&rig.disk);
	rig_run(run, &rig);
	return 0;
}
