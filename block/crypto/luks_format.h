/* A LUKS1 header as it lies on disk: LUKS1 On-Disk Format Specification 1.2.3,
 * section 2.  Structs and constants only; big-endian. */
#ifndef BLOCK_CRYPTO_LUKS_FORMAT_H
#define BLOCK_CRYPTO_LUKS_FORMAT_H

#include "base/bytes.h"

#define LUKS_MAGIC	 "LUKS\xba\xbe"
#define LUKS_MAGIC_BYTES 6
#define LUKS_SLOTS	 8
#define LUKS_STRIPES	 4000
#define LUKS_SECTOR	 512u
#define LUKS_KEY_MOST	 64 /* bytes: two keys of AES-256 */
#define LUKS_NAME_BYTES	 32
#define LUKS_DIGEST	 20
#define LUKS_SALT	 32
#define LUKS_UUID	 40

/* Where the first key slot lies, and what slots and payload are aligned to. */
#define LUKS_FIRST_SLOT_SECTOR 8
#define LUKS_ALIGN_SECTORS     8

/* Longer would not be a passphrase but a trap: more than half a minute a slot. */
#define LUKS_ITERATIONS_MOST  ((u32)1 << 27)
#define LUKS_ITERATIONS_LEAST 1000u

#define LUKS_ACTIVE   0x00ac71f3u
#define LUKS_INACTIVE 0x0000deadu

struct luks_slot {
	be32 state;
	be32 iterations;
	u8 salt[LUKS_SALT];
	be32 key_sector;
	be32 stripes;
};
_Static_assert(sizeof(struct luks_slot) == 48, "a key slot has 48 bytes");

struct luks_header {
	u8 magic[LUKS_MAGIC_BYTES];
	be16 version;
	char cipher_name[LUKS_NAME_BYTES];
	char cipher_mode[LUKS_NAME_BYTES];
	char hash_spec[LUKS_NAME_BYTES];
	be32 payload_sector;
	be32 key_bytes;
	u8 digest[LUKS_DIGEST];
	u8 digest_salt[LUKS_SALT];
	be32 digest_iterations;
	char uuid[LUKS_UUID];
	struct luks_slot slots[LUKS_SLOTS];
};
_Static_assert(sizeof(struct luks_header) == 592, "the header has 592 bytes");

#endif
