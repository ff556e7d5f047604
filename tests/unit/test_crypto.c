/* Ciphers, key derivation and LUKS headers: known answers, and headers that lie. */
#include "tests/unit/backends.h"

#include "block/crypto/aes_legacy.h"
#include "block/crypto/af.h"
#include "block/crypto/cipher_internal.h"
#include "block/crypto/luks.h"
#include "block/crypto/sectors.h"

#include "base/loop.h"

#include <errno.h>
#include <stdio.h>

static u8 nibble(char c)
{
	return (u8)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void hex(u8 *out, const char *text)
{
	for (; *text; text += 2)
		*out++ = (u8)(nibble(text[0]) << 4 | nibble(text[1]));
}

static struct cipher *cipher_of(enum cipher_mode mode, enum cipher_iv iv, const u8 *key,
				size_t bytes)
{
	const struct cipher_spec spec = {.mode = mode, .iv = iv, .essiv_hash = "sha256"};
	struct error err = {0};
	struct cipher *c;
	struct key k;

	assert_int_equal(key_set(&k, key, bytes), 0);
	assert_int_equal(cipher_new(&c, &spec, &k, &err), 0);
	key_wipe(&k);
	return c;
}

static void one_sector(struct cipher *c, bool encrypt, u64 sector, const u8 *in, u8 *out)
{
	struct cipher_context *x = cipher_get(c);

	assert_non_null(x);
	assert_int_equal(cipher_run(x, encrypt, sector, in, out, CIPHER_SECTOR), 0);
	cipher_put(c, x);
}

static void count_up(u8 *sector)
{
	for (unsigned i = 0; i < CIPHER_SECTOR; i++)
		sector[i] = (u8)i;
}

/* IEEE 1619-2007, annex B, vectors 4 and 10. */
static void xts_gives_the_answers_of_the_standard(void **state)
{
	static const struct {
		const char *key, *start;
		u64 sector;
	} known[] = {
		{"2718281828459045235360287471352631415926535897932384626433832795",
		 "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c", 0},
		{"2718281828459045235360287471352662497757247093699959574966967627"
		 "3141592653589793238462643383279502884197169399375105820974944592",
		 "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b", 0xff},
	};
	u8 key[64], plain[CIPHER_SECTOR], out[CIPHER_SECTOR], want[32];

	for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
		struct cipher *c;

		hex(key, known[i].key);
		hex(want, known[i].start);
		count_up(plain);
		c = cipher_of(CIPHER_XTS, IV_PLAIN64, key, strlen(known[i].key) / 2);
		one_sector(c, true, known[i].sector, plain, out);
		assert_memory_equal(out, want, sizeof(want));
		one_sector(c, false, known[i].sector, out, out);
		assert_memory_equal(out, plain, sizeof(plain));
		cipher_free(c);
	}
}

static void xts_by_hand_agrees_with_the_library(void **state)
{
	static const struct cipher_spec spec = {.mode = CIPHER_XTS, .iv = IV_PLAIN64};
	struct cipher_context by_hand = {.spec = &spec};
	u8 key[64], iv[IV_BYTES] = {7, 1}, plain[CIPHER_SECTOR], a[CIPHER_SECTOR], b[CIPHER_SECTOR];
	struct cipher *c;

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (u8)(i * 37 + 1);
	count_up(plain);
	c = cipher_of(CIPHER_XTS, IV_PLAIN64, key, sizeof(key));
	one_sector(c, true, 0x107, plain, a);
	assert_int_equal(xts_by_hand_init(&by_hand, key, sizeof(key)), 0);
	assert_int_equal(xts_by_hand(&by_hand, true, iv, plain, b), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(xts_by_hand(&by_hand, false, iv, b, b), 0);
	assert_memory_equal(b, plain, sizeof(b));
	cipher_free(c);
	EVP_CIPHER_CTX_free(by_hand.crypt[0]);
	EVP_CIPHER_CTX_free(by_hand.crypt[1]);
	EVP_CIPHER_CTX_free(by_hand.aux);
}

static void legacy_aes_is_cbc_under_a_padded_passphrase(void **state)
{
	struct error err = {0};
	struct cipher *legacy, *cbc;
	u8 key[16] = "secret", plain[CIPHER_SECTOR], a[CIPHER_SECTOR], b[CIPHER_SECTOR];
	struct key passphrase;

	count_up(plain);
	assert_int_equal(key_set(&passphrase, "secret", 6), 0);
	assert_int_equal(aes_legacy_new(&legacy, &passphrase, &err), 0);
	cbc = cipher_of(CIPHER_CBC, IV_PLAIN64, key, sizeof(key));
	one_sector(legacy, true, 12345, plain, a);
	one_sector(cbc, true, 12345, plain, b);
	assert_memory_equal(a, b, sizeof(a));
	one_sector(cbc, true, 12346, plain, b);
	assert_memory_not_equal(a, b, sizeof(a));
	cipher_free(legacy);
	cipher_free(cbc);
	key_wipe(&passphrase);
}

static void keys_of_wrong_length_are_refused(void **state)
{
	static const u8 bytes[80];
	struct error err = {0};
	struct cipher *c;

	for (size_t n = 0; n <= sizeof(bytes); n++) {
		const struct cipher_spec spec = {.mode = CIPHER_CBC, .iv = IV_PLAIN};
		bool right = n == 16 || n == 24 || n == 32;
		struct key k;

		assert_int_equal(key_set(&k, bytes, n), 0);
		assert_int_equal(cipher_key_fits(CIPHER_CBC, n), right);
		assert_int_equal(cipher_new(&c, &spec, &k, &err) == 0, right);
		if (right)
			cipher_free(c);
		key_wipe(&k);
	}
}

/* --- in a fiber ----------------------------------------------------------------------- */

static void in_fiber(fiber_fn *fn, void *arg)
{
	struct error err = {0};
	struct loop *loop;

	assert_int_equal(loop_new(&loop, "test", LOOP_AUTO, &err), 0);
	assert_int_equal(loop_run_fiber(loop, fn, arg), 0);
	loop_free(loop);
}

static void check_kdf(struct fiber *f, const char *hash, u32 iterations, const char *want)
{
	struct key password;
	struct kdf k = {.hash = hash_find(hash),
			.password = &password,
			.salt = (const u8 *)"salt",
			.salt_bytes = 4,
			.iterations = iterations};
	u8 got[64], right[64];

	assert_int_equal(key_set(&password, "password", 8), 0);
	assert_int_equal(kdf_run(f, &k, got, strlen(want) / 2), 0);
	hex(right, want);
	assert_memory_equal(got, right, strlen(want) / 2);
	key_wipe(&password);
}

static void known_kdf(struct fiber *f, void *arg)
{
	check_kdf(f, "sha1", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6");
	check_kdf(f, "sha1", 4096, "4b007901b765489abead49d926f721d065a429c1");
	check_kdf(f, "sha256", 4096,
		  "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a");
}

static void pbkdf2_gives_the_answers_of_rfc_6070(void **state)
{
	in_fiber(known_kdf, NULL);
}

static void kdf_like_library(struct fiber *f, void *arg)
{
	static const char *const names[] = {"sha256", "sha1", "sha512", "sha224", "sha384", "md5"};
	static const size_t lengths[] = {0, 1, 63, 64, 65, 127, 128, 129, 300};
	u8 text[300], got[64], want[64];

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (u8)(i * 7 + 3);
	for (unsigned h = 0; h < ARRAY_LEN(names); h++)
		for (unsigned n = 0; n < ARRAY_LEN(lengths); n++) {
			const EVP_MD *md = EVP_get_digestbyname(names[h]);
			struct key password;
			struct kdf k = {hash_find(names[h]), &password, text, 32, 3};

			assert_int_equal(key_set(&password, text, lengths[n]), 0);
			assert_int_equal(kdf_run(f, &k, got, 48), 0);
			assert_true(PKCS5_PBKDF2_HMAC((const char *)text, (int)lengths[n], text, 32,
						      3, md, 48, want));
			assert_memory_equal(got, want, 48);
			key_wipe(&password);
		}
}

static void pbkdf2_agrees_with_the_library_for_any_password(void **state)
{
	in_fiber(kdf_like_library, NULL);
}

static void a_key_split_and_merged_is_the_same(void **state)
{
	static const char *const names[] = {"sha256", "sha1", "ripemd160"};
	struct key key, split, back;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		const struct hash *h = hash_find(names[i]);

		assert_int_equal(key_set(&key, "0123456789abcdefghijklmnopqrstuv", 32), 0);
		assert_int_equal(key_new(&split, 32 * 50), 0);
		assert_int_equal(key_new(&back, 32), 0);
		assert_int_equal(af_split(h, &key, 50, &split), 0);
		assert_int_equal(af_merge(h, &split, 50, &back), 0);
		assert_memory_equal(back.data, key.data, 32);
		split.data[700] ^= 1;
		assert_int_equal(af_merge(h, &split, 50, &back), 0);
		assert_memory_not_equal(back.data, key.data, 32);
		key_wipe(&key);
		key_wipe(&split);
		key_wipe(&back);
	}
}

/* Elements cut anywhere, in place and not, small and beyond what runs inline. */
static void cut_vectors(struct fiber *f, void *arg)
{
	static const size_t cuts[] = {1, 511, 512, 513, 3, 4096, 100000};
	u8 key[32] = {1, 2, 3, [16] = 9};
	struct cipher *c = cipher_of(CIPHER_XTS, IV_PLAIN64, key, sizeof(key));
	size_t bytes = 400 * 1024, at = 0;
	u8 *plain = xalloc(bytes), *whole = xalloc(bytes), *cut = xalloc(bytes);
	struct iovec one = {plain, bytes}, iov[64];
	unsigned n = 0;

	for (size_t i = 0; i < bytes; i++)
		plain[i] = (u8)(i >> 7 ^ i);
	for (; at < bytes; at += iov[n++].iov_len)
		iov[n] = (struct iovec){plain + at, MIN(cuts[n % ARRAY_LEN(cuts)], bytes - at)};
	assert_int_equal(sectors_encrypt(f, c, 5, &one, 1, whole), 0);
	assert_int_equal(sectors_encrypt(f, c, 5, iov, n, cut), 0);
	assert_memory_equal(whole, cut, bytes);
	for (at = 0; at < bytes; at += CIPHER_SECTOR)
		one_sector(c, true, 5 + at / CIPHER_SECTOR, plain + at, cut + at);
	assert_memory_equal(whole, cut, bytes);
	for (unsigned i = 0; i < n; i++)
		iov[i].iov_base = cut + ((u8 *)iov[i].iov_base - plain);
	assert_int_equal(sectors_decrypt(f, c, 5, iov, n), 0);
	assert_memory_equal(cut, plain, bytes);
	cipher_free(c);
	free(plain);
	free(whole);
	free(cut);
}

static void vectors_cut_anywhere_give_the_same(void **state)
{
	in_fiber(cut_vectors, NULL);
}

/* --- LUKS headers ------------------------------------------------------------------------- */

#define DISK_BYTES (1100 * 1024u)

static int disk_read(struct fiber *f, void *arg, u64 at, void *buf, u64 bytes)
{
	if (at > DISK_BYTES || bytes > DISK_BYTES - at)
		return -EINVAL;
	memcpy(buf, (u8 *)arg + at, bytes);
	return 0;
}

static int disk_write(struct fiber *f, void *arg, u64 at, const void *buf, u64 bytes)
{
	if (at > DISK_BYTES || bytes > DISK_BYTES - at)
		return -EINVAL;
	memcpy((u8 *)arg + at, buf, bytes);
	return 0;
}

static int disk_sync(struct fiber *f, void *arg)
{
	return 0;
}

static void format_disk(struct fiber *f, u8 *disk, const struct key *passphrase)
{
	const struct luks_options o = {.cipher_alg = "aes-128", .iter_ms = 0};
	const struct luks_io io = {disk_read, disk_write, disk_sync, disk};
	struct error err = {0};

	assert_int_equal(luks_format(f, &io, &o, passphrase, &err), 0);
}

/* Opens, and says no to all but the right passphrase. */
static void try_disk(struct fiber *f, u8 *disk, const struct key *passphrase, int want)
{
	const struct luks_io io = {disk_read, disk_write, disk_sync, disk};
	struct error err = {0};
	struct luks *l;

	assert_int_equal(luks_load(f, &l, &io, &err), 0);
	assert_int_equal(luks_unlock(f, l, passphrase, &err), want);
	luks_free(l);
}

static void slots_fiber(struct fiber *f, void *arg)
{
	u8 *disk = xalloc(DISK_BYTES);
	const struct luks_io io = {disk_read, disk_write, disk_sync, disk};
	struct error err = {0};
	struct key first, second;
	struct luks *l;

	assert_int_equal(key_set(&first, "first", 5), 0);
	assert_int_equal(key_set(&second, "second", 6), 0);
	format_disk(f, disk, &first);
	try_disk(f, disk, &first, 0);
	try_disk(f, disk, &second, -EACCES);
	assert_int_equal(luks_load(f, &l, &io, &err), 0);
	assert_int_equal(luks_unlock(f, l, &first, &err), 0);
	for (int i = 1; i < LUKS_SLOTS; i++) {
		const struct luks_change add = {.activate = true, .slot = -1, .new = &second};

		assert_int_equal(luks_change_slots(f, l, &add, &err), 0);
	}
	try_disk(f, disk, &second, 0);
	assert_int_equal(luks_change_slots(f, l,
					   &(struct luks_change){
						   .activate = true, .slot = -1, .new = &second},
					   &err),
			 -ENOSPC);
	assert_int_equal(
		luks_change_slots(f, l, &(struct luks_change){.slot = -1, .old = &first}, &err), 0);
	try_disk(f, disk, &first, -EACCES);
	try_disk(f, disk, &second, 0);
	assert_int_equal(luks_change_slots(f, l, &(struct luks_change){.slot = -1, .old = &second},
					   &err),
			 -EINVAL);
	luks_free(l);
	key_wipe(&first);
	key_wipe(&second);
	free(disk);
}

static void key_slots_come_and_go(void **state)
{
	in_fiber(slots_fiber, NULL);
}

static u64 next(u64 *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}

/* A header with some bits or fields changed, or cut short. */
static void spoil(u8 *head, u64 *seed)
{
	static const u32 values[] = {0, 1, 8, 0xffffffff, 0x80000000, 4000, 0xac71f3, 0xdead};

	for (u64 n = next(seed) % 4 + 1; n; n--) {
		u64 at = next(seed) % sizeof(struct luks_header);

		switch (next(seed) % 4) {
		case 0: store_be32(head + align_down(at, 4), values[next(seed) % 8]); break;
		case 1: memset(head + at, 0, sizeof(struct luks_header) - at); break;
		default: head[at] ^= (u8)(1u << next(seed) % 8);
		}
	}
}

static bool is_quick(const struct luks *l)
{
	bool quick = be32_get(l->head.digest_iterations) < 3000;

	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		quick &= be32_get(l->head.slots[i].state) != LUKS_ACTIVE ||
			 be32_get(l->head.slots[i].iterations) < 3000;
	return quick;
}

static void hostile_fiber(struct fiber *f, void *arg)
{
	u8 *disk = xalloc(DISK_BYTES), good[sizeof(struct luks_header)];
	const struct luks_io io = {disk_read, disk_write, disk_sync, disk};
	unsigned opened = 0, refused = 0;
	u64 seed = 20;
	struct key k;

	assert_int_equal(key_set(&k, "first", 5), 0);
	format_disk(f, disk, &k);
	memcpy(good, disk, sizeof(good));
	for (unsigned i = 0; i < 5000; i++) {
		struct error err = {0};
		struct luks *l;

		memcpy(disk, good, sizeof(good));
		spoil(disk, &seed);
		if (luks_load(f, &l, &io, &err) < 0) {
			assert_true(err.code < 0 && err.text[0]);
			refused++;
			continue;
		}
		assert_true(luks_payload_bytes(l) >= sizeof(struct luks_header));
		if (is_quick(l) && opened < 200)
			opened += luks_unlock(f, l, &k, &err) == 0;
		luks_free(l);
	}
	assert_true(refused > 1000 && opened > 10);
	key_wipe(&k);
	free(disk);
}

static void headers_that_lie_are_refused(void **state)
{
	in_fiber(hostile_fiber, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(xts_gives_the_answers_of_the_standard),
		cmocka_unit_test(xts_by_hand_agrees_with_the_library),
		cmocka_unit_test(legacy_aes_is_cbc_under_a_padded_passphrase),
		cmocka_unit_test(keys_of_wrong_length_are_refused),
		cmocka_unit_test(pbkdf2_gives_the_answers_of_rfc_6070),
		cmocka_unit_test(pbkdf2_agrees_with_the_library_for_any_password),
		cmocka_unit_test(a_key_split_and_merged_is_the_same),
		cmocka_unit_test(vectors_cut_anywhere_give_the_same),
		cmocka_unit_test(key_slots_come_and_go),
		cmocka_unit_test(headers_that_lie_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
