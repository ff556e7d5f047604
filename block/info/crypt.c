/* What `info` says of encryption, for people and as JSON, in the reference's order
 * of things.  Nothing here needs a passphrase. */
#include "block/info/info.h"

#include "block/crypto/luks.h"
#include "block/driver.h"
#include "block/luks.h"
#include "block/qcow2/crypt.h"

#include <jansson.h>

static bool is_active(const struct luks_slot *s)
{
	return be32_get(s->state) == LUKS_ACTIVE;
}

static u64 key_offset(const struct luks_slot *s)
{
	return (u64)be32_get(s->key_sector) * LUKS_SECTOR;
}

static const char *uuid(const struct luks *l, char *text)
{
	memcpy(text, l->head.uuid, LUKS_UUID);
	text[LUKS_UUID] = 0;
	for (char *c = text; *c; c++)
		*c = *c < ' ' || *c > '~' ? '?' : *c;
	return text;
}

/* --- for people --- */

static void print_slots(FILE *out, const struct luks *l, int indent)
{
	fprintf(out, "%*sslots:\n", indent, "");
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		const struct luks_slot *s = &l->head.slots[i];

		fprintf(out, "%*s[%u]:\n%*sactive: %s\n", indent + 4, "", i, indent + 8, "",
			is_active(s) ? "true" : "false");
		if (is_active(s))
			fprintf(out, "%*siters: %u\n", indent + 8, "", be32_get(s->iterations));
		fprintf(out, "%*skey offset: %llu\n", indent + 8, "",
			(unsigned long long)key_offset(s));
		if (is_active(s))
			fprintf(out, "%*sstripes: %u\n", indent + 8, "", be32_get(s->stripes));
	}
}

static void print_luks(FILE *out, const struct luks *l, int indent, bool in_qcow2)
{
	char text[LUKS_UUID + 1];

	fprintf(out, "%*sivgen alg: %s\n", indent, "", luks_ivgen_name(l));
	fprintf(out, "%*shash alg: %s\n%*scipher alg: %s\n%*suuid: %s\n", indent, "",
		l->head.hash_spec, indent, "", l->cipher_alg, indent, "", uuid(l, text));
	if (*l->essiv_hash)
		fprintf(out, "%*sivgen hash alg: %s\n", indent, "", l->essiv_hash);
	if (in_qcow2)
		fprintf(out, "%*sformat: luks\n", indent, "");
	fprintf(out, "%*scipher mode: %s\n", indent, "", luks_mode_name(l));
	print_slots(out, l, indent);
	fprintf(out, "%*spayload offset: %llu\n%*smaster key iters: %u\n", indent, "",
		(unsigned long long)luks_payload_bytes(l), indent, "",
		be32_get(l->head.digest_iterations));
}

bool info_is_encrypted(const struct image *img)
{
	return img->driver->unlock && (img->driver != &qcow2_driver || qcow2_crypt_method(img));
}

void info_print_encrypt(FILE *out, struct image *img)
{
	if (qcow2_crypt_method(img) == CRYPT_NONE)
		return;
	fprintf(out, "    encrypt:\n");
	if (qcow2_crypt_method(img) == CRYPT_AES)
		fprintf(out, "        format: aes\n");
	else
		print_luks(out, qcow2_luks(img), 8, true);
}

void info_print_luks(FILE *out, struct image *img)
{
	fprintf(out, "Format specific information:\n");
	print_luks(out, luks_image_header(img), 4, false);
}

/* --- JSON --- */

static json_t *slots_json(const struct luks *l)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		const struct luks_slot *s = &l->head.slots[i];
		json_t *o = json_object();

		json_object_set_new(o, "active", json_boolean(is_active(s)));
		if (is_active(s))
			json_object_set_new(o, "iters", json_integer(be32_get(s->iterations)));
		json_object_set_new(o, "key-offset", json_integer((json_int_t)key_offset(s)));
		if (is_active(s))
			json_object_set_new(o, "stripes", json_integer(be32_get(s->stripes)));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *luks_json(const struct luks *l, bool in_qcow2)
{
	char text[LUKS_UUID + 1];
	json_t *o = json_object();

	json_object_set_new(o, "ivgen-alg", json_string(luks_ivgen_name(l)));
	json_object_set_new(o, "hash-alg", json_string(l->head.hash_spec));
	json_object_set_new(o, "cipher-alg", json_string(l->cipher_alg));
	json_object_set_new(o, "uuid", json_string(uuid(l, text)));
	if (*l->essiv_hash)
		json_object_set_new(o, "ivgen-hash-alg", json_string(l->essiv_hash));
	if (in_qcow2)
		json_object_set_new(o, "format", json_string("luks"));
	json_object_set_new(o, "cipher-mode", json_string(luks_mode_name(l)));
	json_object_set_new(o, "slots", slots_json(l));
	json_object_set_new(o, "payload-offset", json_integer((json_int_t)luks_payload_bytes(l)));
	json_object_set_new(o, "master-key-iters",
			    json_integer(be32_get(l->head.digest_iterations)));
	return o;
}

json_t *info_encrypt_json(struct image *img)
{
	if (qcow2_crypt_method(img) == CRYPT_NONE)
		return NULL;
	if (qcow2_crypt_method(img) == CRYPT_AES)
		return json_pack("{s:s}", "format", "aes");
	return luks_json(qcow2_luks(img), true);
}

json_t *info_luks_json(struct image *img)
{
	return json_pack("{s:s, s:o}", "type", "luks", "data",
			 luks_json(luks_image_header(img), false));
}
