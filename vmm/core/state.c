/* Codec of saved state: sections of named, typed fields.
 *
 * Little-endian throughout, as x86 is: integers are copied as they lie in memory.
 *   section: name, u32 bytes of the body, body
 *   body:    fields, in any order, each at most once
 *   field:   name, u8 kind, u8 bytes of an element (struct: 0), u32 count, elements
 *   element: the integer; one byte 0 or 1; or u32 bytes and the body of a struct
 *   name:    u8 length (1 and up), characters
 * Input is hostile until proven otherwise: every length is checked against what
 * is left, and kind, size and count against the table.
 * Thread: any; a buffer belongs to its caller. */
#include "vmm/core/state.h"

#include "base/bytes.h"

#include <errno.h>

#define STATE_MAX_FIELDS 256

/* --- writing ------------------------------------------------------------------ */

void state_buf_fini(struct state_buf *b)
{
	if (b->room)
		free(b->data);
	*b = (struct state_buf){0};
}

void state_put_bytes(struct state_buf *b, const void *data, size_t bytes)
{
	size_t need = b->bytes + bytes;

	assert(need >= bytes);
	assert(b->room || !b->data); /* lent buffers are for reading */
	if (need > b->room) {
		b->room = MAX(need, b->room * 2 + 256);
		b->data = xrealloc(b->data, b->room);
	}
	if (bytes)
		memcpy(b->data + b->bytes, data, bytes);
	b->bytes = need;
}

static void put_u8(struct state_buf *b, u8 v)
{
	state_put_bytes(b, &v, 1);
}

static void put_u32(struct state_buf *b, u32 v)
{
	le32 x = le32_of(v);

	state_put_bytes(b, &x, sizeof(x));
}

static void put_name(struct state_buf *b, const char *name)
{
	size_t len = strlen(name);

	assert(len >= 1 && len <= 255);
	put_u8(b, (u8)len);
	state_put_bytes(b, name, len);
}

/* Leaves room for a u32 that end_block fills with the number of bytes after it. */
static size_t begin_block(struct state_buf *b)
{
	put_u32(b, 0);
	return b->bytes;
}

static void end_block(struct state_buf *b, size_t start)
{
	assert(b->bytes - start <= UINT32_MAX);
	store_le32(b->data + start - sizeof(u32), (u32)(b->bytes - start));
}

static void put_fields(struct state_buf *b, const struct state_field *table, const u8 *object);

/* The guest stands still meanwhile: integers go as they lie in memory, all at once. */
static void put_elements(struct state_buf *b, const struct state_field *field, const u8 *from)
{
	if (field->kind != STATE_KIND_STRUCT) {
		assert(field->size == 1 || field->size == 2 || field->size == 4 ||
		       field->size == 8);
		state_put_bytes(b, from, (size_t)field->count * field->size);
		return;
	}
	for (u32 i = 0; i < field->count; i++) {
		size_t start = begin_block(b);

		put_fields(b, field->fields, from + (size_t)i * field->size);
		end_block(b, start);
	}
}

static void put_fields(struct state_buf *b, const struct state_field *table, const u8 *object)
{
	for (const struct state_field *field = table; field->kind != STATE_KIND_END; field++) {
		put_name(b, field->name);
		put_u8(b, (u8)field->kind);
		put_u8(b, field->kind == STATE_KIND_STRUCT ? 0 : (u8)field->size);
		put_u32(b, field->count);
		put_elements(b, field, object + field->offset);
	}
}

void state_save(struct state_buf *out, const char *section, const struct state_field *table,
		const void *object)
{
	size_t start;

	put_name(out, section);
	start = begin_block(out);
	put_fields(out, table, object);
	end_block(out, start);
}

/* --- reading ------------------------------------------------------------------ */

/* What is left of a block, and where we are for messages. */
struct reader {
	const u8 *p;
	size_t left;
	const char *section;
	struct error *err;
};

static int cut_short(struct reader *r)
{
	return err_set(r->err, -EINVAL, "state of '%s' is cut short", r->section);
}

static int take(struct reader *r, size_t bytes, const u8 **out)
{
	if (bytes > r->left)
		return cut_short(r);
	*out = r->p;
	r->p += bytes;
	r->left -= bytes;
	return 0;
}

static int take_u8(struct reader *r, u8 *out)
{
	const u8 *p = NULL;
	int ret = take(r, 1, &p);

	if (ret == 0)
		*out = *p;
	return ret;
}

static int take_u32(struct reader *r, u32 *out)
{
	const u8 *p = NULL;
	int ret = take(r, 4, &p);

	if (ret == 0)
		*out = load_le32(p);
	return ret;
}

/* A block with its u32 of length in front: `inner` reads within it. */
static int take_block(struct reader *r, struct reader *inner)
{
	u32 bytes = 0;
	int ret = take_u32(r, &bytes);

	if (ret == 0) {
		*inner = *r;
		ret = take(r, bytes, &inner->p);
		inner->left = bytes;
	}
	return ret;
}

static int take_name(struct reader *r, char name[256])
{
	const u8 *p = NULL;
	u8 len = 0;
	int ret = take_u8(r, &len);

	if (ret == 0)
		ret = take(r, len, &p);
	if (ret < 0)
		return ret;
	if (len == 0)
		return err_set(r->err, -EINVAL, "state of '%s' has a field without a name",
			       r->section);
	for (unsigned i = 0; i < len; i++) {
		/* It may come back in messages: printable characters only. */
		if (p[i] < 0x20 || p[i] > 0x7e)
			return err_set(r->err, -EINVAL, "state of '%s' has a garbled name",
				       r->section);
		name[i] = (char)p[i];
	}
	name[len] = '\0';
	return 0;
}

static int take_ints(struct reader *r, const struct state_field *field, u32 n, u8 *to)
{
	size_t bytes = (size_t)n * field->size;
	const u8 *p = NULL;
	int ret = take(r, bytes, &p);

	if (ret < 0)
		return ret;
	for (size_t i = 0; field->kind == STATE_KIND_BOOL && i < bytes; i++)
		if (p[i] > 1)
			return err_set(r->err, -EINVAL, "state of '%s': %s is %u, expected 0 or 1",
				       r->section, field->name, p[i]);
	memcpy(to, p, bytes);
	return 0;
}

static int take_fields(struct reader *r, const struct state_field *table, u8 *object);

static int take_struct(struct reader *r, const struct state_field *field, u8 *to)
{
	struct reader inner;
	int ret = take_block(r, &inner);

	return ret < 0 ? ret : take_fields(&inner, field->fields, to);
}

/* The field's type as stored, which must be the table's, and how many there are. */
static int take_type(struct reader *r, const struct state_field *field, u32 *n)
{
	u32 least = field->least ? field->least : field->count;
	u32 want_size = field->kind == STATE_KIND_STRUCT ? 0 : field->size;
	u32 count = 0;
	u8 kind = 0, size = 0;
	int ret = take_u8(r, &kind);

	if (ret == 0)
		ret = take_u8(r, &size);
	if (ret == 0)
		ret = take_u32(r, &count);
	if (ret < 0)
		return ret;
	if (kind != field->kind)
		return err_set(r->err, -EINVAL, "state of '%s': %s is of kind %u, expected %u",
			       r->section, field->name, kind, field->kind);
	if (size != want_size || count < least || count > field->count)
		return err_set(r->err, -EINVAL,
			       "state of '%s': %s is %u x %u bytes, expected %u x %u", r->section,
			       field->name, count, size, field->count, want_size);
	*n = count;
	return 0;
}

static int take_field(struct reader *r, const struct state_field *field, u8 *object)
{
	u32 n = 0;
	int ret = take_type(r, field, &n);

	if (ret == 0 && field->kind != STATE_KIND_STRUCT)
		return take_ints(r, field, n, object + field->offset);
	for (u32 i = 0; ret == 0 && i < n; i++)
		ret = take_struct(r, field, object + field->offset + (size_t)i * field->size);
	return ret;
}

static u32 find_field(const struct state_field *table, const char *name)
{
	u32 i = 0;

	while (table[i].kind != STATE_KIND_END && strcmp(table[i].name, name) != 0)
		i++;
	return i;
}

static int check_all_seen(struct reader *r, const struct state_field *table, const bool *seen)
{
	for (u32 i = 0; table[i].kind != STATE_KIND_END; i++)
		if (!seen[i] && !table[i].optional)
			return err_set(r->err, -EINVAL, "state of '%s' lacks field '%s'",
				       r->section, table[i].name);
	return 0;
}

static void zero_fields(const struct state_field *table, u8 *object)
{
	for (const struct state_field *field = table; field->kind != STATE_KIND_END; field++) {
		u8 *at = object + field->offset;

		if (field->kind != STATE_KIND_STRUCT)
			memset(at, 0, (size_t)field->count * field->size);
		else
			for (u32 i = 0; i < field->count; i++)
				zero_fields(field->fields, at + (size_t)i * field->size);
	}
}

static int take_fields(struct reader *r, const struct state_field *table, u8 *object)
{
	bool seen[STATE_MAX_FIELDS] = {false};
	char name[256];
	int ret;

	zero_fields(table, object);
	while (r->left) {
		u32 i;

		ret = take_name(r, name);
		if (ret < 0)
			return ret;
		i = find_field(table, name);
		assert(i < STATE_MAX_FIELDS);
		if (table[i].kind == STATE_KIND_END)
			return err_set(r->err, -EINVAL, "state of '%s': unknown field '%s'",
				       r->section, name);
		if (seen[i])
			return err_set(r->err, -EINVAL, "state of '%s': field '%s' comes twice",
				       r->section, name);
		seen[i] = true;
		ret = take_field(r, &table[i], object);
		if (ret < 0)
			return ret;
	}
	return check_all_seen(r, table, seen);
}

int state_load(struct state_buf *in, const char *section, const struct state_field *table,
	       void *object, struct error *err)
{
	struct reader r = {.section = section, .err = err}, inner;
	char name[256];
	int ret;

	assert(in->at <= in->bytes);
	r.p = in->data ? in->data + in->at : NULL;
	r.left = in->bytes - in->at;
	ret = take_name(&r, name);
	if (ret < 0)
		return ret;
	if (strcmp(name, section) != 0)
		return err_set(err, -EINVAL, "state of '%s' found where '%s' was expected", name,
			       section);
	ret = take_block(&r, &inner);
	if (ret == 0)
		ret = take_fields(&inner, table, object);
	if (ret == 0)
		in->at = in->bytes - r.left;
	return ret;
}

/* --- structs of one type ------------------------------------------------------ */

void state_copy(const struct state_field *table, void *to, const void *from)
{
	for (const struct state_field *field = table; field->kind != STATE_KIND_END; field++) {
		u8 *out = (u8 *)to + field->offset;
		const u8 *in = (const u8 *)from + field->offset;
		size_t size = field->size;

		if (field->kind != STATE_KIND_STRUCT)
			memcpy(out, in, field->count * size);
		else
			for (u32 i = 0; i < field->count; i++)
				state_copy(field->fields, out + i * size, in + i * size);
	}
}

static bool element_equal(const struct state_field *field, const u8 *a, const u8 *b)
{
	return field->kind == STATE_KIND_STRUCT ? state_equal(field->fields, a, b)
						: memcmp(a, b, field->size) == 0;
}

bool state_equal(const struct state_field *table, const void *a, const void *b)
{
	for (const struct state_field *field = table; field->kind != STATE_KIND_END; field++)
		for (u32 i = 0; i < field->count; i++) {
			size_t off = field->offset + (size_t)i * field->size;

			if (!element_equal(field, (const u8 *)a + off, (const u8 *)b + off))
				return false;
		}
	return true;
}
