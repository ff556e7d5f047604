/* Power cuts while key slots change hands: a slot is added for a new passphrase, then the
 * old passphrase is taken away.  At every moment the image opens with the old one or
 * with the new one, and shows what it holds; what amend said it had done is done.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/tool_rig.h"

#include "base/log.h"
#include "block/unlock.h"

#include <errno.h>
#include <stdio.h>

#define BYTES (256 * KiB)

static bool opens_with(struct fiber *f, struct rig *r, const char *passphrase)
{
	const struct unlock_policy later = {.when = UNLOCK_LATER};
	struct open_policy policy = {.unlock = &later};
	struct image *img = rig_open(f, r, "image", &policy);
	struct error err = {0};
	struct key key;
	int ret;

	assert_int_equal(key_set(&key, passphrase, strlen(passphrase)), 0);
	ret = image_unlock(f, img, &key, &err);
	key_wipe(&key);
	if (ret == 0) {
		assert_int_equal(image_pread(f, img, 0, r->now, BYTES), 0);
		rig_expect(r, r->old[0], NULL, passphrase, r->events);
	} else {
		assert_int_equal(ret, -EACCES);
	}
	assert_int_equal(image_close(f, img), 0);
	return ret == 0;
}

static void judge(struct fiber *f, void *arg, size_t events)
{
	struct rig *r = arg;
	bool added = events >= r->ended[0], removed = events >= r->ended[1];
	bool new = opens_with(f, r, "new"), old = opens_with(f, r, "old");

	if (added ? !new : !old)
		fail_msg("%s: cut after event %zu of %zu: the %s passphrase does not open it",
			 r->s->name, events, r->log.n, added ? "new" : "old");
	if (removed && old)
		fail_msg("%s: cut after event %zu of %zu: the old passphrase still opens it",
			 r->s->name, events, r->log.n);
}

static int old_passphrase(struct fiber *f, void *arg, const struct unlock_question *q,
			  struct key *out, struct error *err)
{
	return key_set(out, "old", 3);
}

static void write_content(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	const struct unlock_policy unlock = {.when = UNLOCK_NOW, .ask = old_passphrase};
	struct open_policy policy = {.writable = true,
				     .format = r->s->format ? r->s->format : "qcow2",
				     .unlock = &unlock};
	AUTO_FREE char *path = xasprintf("%s/image", r->dir);
	struct error err = {0};
	struct image *img;

	r->old[0] = xalloc(BYTES);
	for (u64 i = 0; i < BYTES; i++)
		r->old[0][i] = (u8)(i / 512 * 7 + 1);
	if (image_open(f, &img, path, &policy, &err))
		fail_msg("%s", err.text);
	assert_int_equal(image_pwrite(f, img, 0, r->old[0], BYTES), 0);
	assert_int_equal(image_close(f, img), 0);
}

static void run(void **state, struct scenario s, const char *options)
{
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 0;

	s.passphrases[0] = "old";
	s.passphrases[1] = "new";
	s.bytes = BYTES;
	s.files[0] = "image";
	s.judge = judge;
	s.samples = rounds ? 8 * rounds : 3;
	s.seed = 0x2ffd72dbd01adfb7ull;

	AUTO_FREE char *create =
		xasprintf("create -q --object secret,id=s,data=old %s @image 256K", options);
	struct rig *r = rig_new(&s);

	rig_run(r, create);
	assert_int_equal(loop_run_fiber(*state, write_content, r), 0);
	rig_load(r);
	rig_cut_everywhere(r, *state);
	rig_free(r);
}

#define SECRETS "--object secret,id=s,data=old --object secret,id=n,data=new "

static void power_cut_leaves_a_luks_header_that_opens(void **state)
{
	static const u32 sizes[] = {65536, 512, 2 * MiB};

	for (u32 i = 0; i < (getenv("COWVM_CRASH_ROUNDS") ? ARRAY_LEN(sizes) : 1); i++) {
		AUTO_FREE char *name = xasprintf("LUKS in clusters of %u", sizes[i]);
		AUTO_FREE char *options =
			xasprintf("-f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,"
				  "encrypt.iter-time=1,cluster_size=%u",
				  sizes[i]);
		struct scenario s = {
			.name = name,
			.commands = {"amend -q " SECRETS "-o encrypt.state=active,"
				     "encrypt.new-secret=n,encrypt.iter-time=1 --image-opts "
				     "driver=qcow2,file.filename=@image,encrypt.key-secret=s",
				     "amend -q " SECRETS "-o encrypt.state=inactive,"
				     "encrypt.old-secret=s --image-opts "
				     "driver=qcow2,file.filename=@image,encrypt.key-secret=n"}};

		run(state, s, options);
	}
}

static void power_cut_leaves_a_luks_container_that_opens(void **state)
{
	struct scenario s = {
		.name = "LUKS container",
		.format = "luks",
		.commands = {"amend -q " SECRETS "-o state=active,new-secret=n,iter-time=1 "
			     "--image-opts driver=luks,file.filename=@image,key-secret=s",
			     "amend -q " SECRETS "-o state=inactive,old-secret=s "
			     "--image-opts driver=luks,file.filename=@image,key-secret=n"}};

	run(state, s, "-f luks -o key-secret=s,iter-time=1");
}

#define TESTS(X)                                                                                   \
	X(power_cut_leaves_a_luks_header_that_opens),                                              \
		X(power_cut_leaves_a_luks_container_that_opens)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and key slots", tests, NULL, NULL);
}
