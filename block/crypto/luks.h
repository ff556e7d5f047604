/* LUKS1 headers: reading, opening by passphrase, making, changing key slots.
 *
 * A header lies at the start of a file, or wherever the `luks_io` of its owner
 * puts it.  Thread: the image's loop; key derivation on pool threads. */
#ifndef BLOCK_CRYPTO_LUKS_H
#define BLOCK_CRYPTO_LUKS_H

#include "base/error.h"
#include "base/fiber.h"
#include "base/opts.h"
#include "block/crypto/cipher.h"
#include "block/crypto/luks_format.h"

/* The place of a header: reads beyond its end are the callee's to refuse or to
 * fill with zeros.  Each returns 0 or a negative errno. */
struct luks_io {
	int (*read)(struct fiber *f, void *arg, u64 at, void *buf, u64 bytes);
	int (*write)(struct fiber *f, void *arg, u64 at, const void *buf, u64 bytes);
	int (*sync)(struct fiber *f, void *arg);
	void *arg;
};

struct luks {
	union {
		struct luks_header head; /* as on disk */
		u8 head_bytes[sizeof(struct luks_header)];
	};
	struct luks_io io;		  /* [const] */
	struct cipher_spec spec;	  /* [const] */
	const struct hash *hash;	  /* [const] of passphrases and the splitter */
	char cipher_alg[16];		  /* [const] "aes-256" */
	char essiv_hash[LUKS_NAME_BYTES]; /* [const] "" without ESSIV */
	struct key master;		  /* NULL while locked */
	struct cipher *cipher;		  /* NULL while locked */
};

bool luks_probe(const u8 *head, size_t bytes);

/* Read and judge a header.  Fills err. */
int luks_load(struct fiber *f, struct luks **out, const struct luks_io *io, struct error *err);
void luks_free(struct luks *l); /* wipes its keys; NULL is fine */
/* Find the master key.  -EACCES: no slot opens with this.  Suspends for as long as
 * whoever made the slots wanted. */
int luks_unlock(struct fiber *f, struct luks *l, const struct key *passphrase, struct error *err);

static inline u64 luks_payload_bytes(const struct luks *l) /* header and key material */
{
	return (u64)be32_get(l->head.payload_sector) * LUKS_SECTOR;
}
const char *luks_mode_name(const struct luks *l);  /* "xts" */
const char *luks_ivgen_name(const struct luks *l); /* "plain64" */

/* --- luks_create.c --- */
/* As --image-opts and -o name them; NULL: the default. */
struct luks_options {
	const char *cipher_alg, *cipher_mode, *ivgen_alg, *ivgen_hash_alg, *hash_alg;
	u64 iter_ms; /* CPU time that a guess is to cost */
};
#define LUKS_OPTION_NAMES "cipher-alg cipher-mode ivgen-alg ivgen-hash-alg hash-alg iter-time"
/* From those named PREFIX + name; the strings are lent by `o`.  Values that are
 * unknown are refused, with the reference's words. */
int luks_options_parse(struct luks_options *out, const struct opts *o, const char *prefix,
		       struct error *err);
/* Header and key material that luks_format makes with these: bytes. */
int luks_options_payload(const struct luks_options *o, u64 *bytes, struct error *err);
/* Write a fresh header with one key slot and a random master key; durable. */
int luks_format(struct fiber *f, const struct luks_io *io, const struct luks_options *o,
		const struct key *passphrase, struct error *err);

/* --- luks_slots.c --- */
#define LUKS_ITER_MS_DEFAULT 2000
struct luks_change {
	bool activate;	       /* else erase */
	int slot;	       /* -1: the first free one, or those that `old` opens */
	const struct key *old; /* erase: NULL if not given */
	const struct key *new; /* activate */
	u64 iter_ms;
	bool force; /* the last slot may go */
};
/* Change key slots of an unlocked header, durably; at every moment those that are
 * not touched work.  Suspends. */
int luks_change_slots(struct fiber *f, struct luks *l, const struct luks_change *change,
		      struct error *err);
/* For luks_format: make slot i hold the master key. */
int luks_fill_slot(struct fiber *f, struct luks *l, unsigned i, const struct key *passphrase,
		   u64 iter_ms, struct error *err);
int luks_write_header(struct fiber *f, struct luks *l);
/* Does this open slot i?  1 and *master set; 0 if not; negative errno. */
int luks_try_slot(struct fiber *f, struct luks *l, unsigned i, const struct key *passphrase,
		  struct key *master);
/* Key material of a slot, rounded up to sectors. */
u64 luks_material_bytes(const struct luks *l);
/* Read a header's fields into spec, hash and names; *l is zeroed but for head. */
int luks_judge(struct luks *l, struct error *err);
int luks_slot_cipher(struct luks *l, const struct luks_slot *slot, const struct key *passphrase,
		     struct fiber *f, struct cipher **out);
/* Iterations that take so many milliseconds for a key of this header. */
u32 luks_iterations(struct fiber *f, const struct luks *l, size_t key_bytes, u64 ms);

#endif
