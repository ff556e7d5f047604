/* Saved state as tables: each field is stored under its name.
 *
 * STATE derives kind and width from the member's type (u8..u64, s32, s64, bool);
 * pointers and arrays do not compile in it.  Loading fills a zeroed copy of the
 * struct's fields; an unknown, missing or wrongly sized field is an error naming
 * it, unless the table marks it optional.  Encoding: see state.c. */
#ifndef VMM_CORE_STATE_H
#define VMM_CORE_STATE_H

#include "base/base.h"
#include "base/error.h"

enum state_kind { STATE_KIND_END, STATE_KIND_INT, STATE_KIND_BOOL, STATE_KIND_STRUCT };

struct state_field {
	const char *name;
	u32 offset;
	u32 size;  /* of one element */
	u32 count; /* 1, or the array's length */
	u32 least; /* elements that there must be; 0: count */
	enum state_kind kind;
	bool optional;
	const struct state_field *fields; /* of STATE_KIND_STRUCT */
};

#define STATE_KIND_OF_(x)                                                                          \
	_Generic((x), bool                                                                         \
		 : STATE_KIND_BOOL, u8                                                             \
		 : STATE_KIND_INT, u16                                                             \
		 : STATE_KIND_INT, u32                                                             \
		 : STATE_KIND_INT, u64                                                             \
		 : STATE_KIND_INT, s32                                                             \
		 : STATE_KIND_INT, s64                                                             \
		 : STATE_KIND_INT, s8                                                              \
		 : STATE_KIND_INT, s16                                                             \
		 : STATE_KIND_INT)
#define STATE_FIELD_(type, member, opt)                                                            \
	{                                                                                          \
		.name = #member, .offset = offsetof(type, member),                                 \
		.size = sizeof(((type *)0)->member), .count = 1,                                   \
		.kind = STATE_KIND_OF_(((type *)0)->member), .optional = (opt)                     \
	}
#define STATE(type, member)	     STATE_FIELD_(type, member, false)
#define STATE_OPTIONAL(type, member) STATE_FIELD_(type, member, true)
#define STATE_ARRAY(type, member)                                                                  \
	{                                                                                          \
		.name = #member, .offset = offsetof(type, member),                                 \
		.size = sizeof(((type *)0)->member[0]), .count = ARRAY_LEN(((type *)0)->member),   \
		.kind = STATE_KIND_OF_(((type *)0)->member[0])                                     \
	}
/* It was shorter once: snapshots may have no more than the first `was` elements; the
 * others are 0 then. */
#define STATE_ARRAY_GROWN(type, member, was)                                                       \
	{                                                                                          \
		.name = #member, .offset = offsetof(type, member),                                 \
		.size = sizeof(((type *)0)->member[0]), .count = ARRAY_LEN(((type *)0)->member),   \
		.least = (was), .kind = STATE_KIND_OF_(((type *)0)->member[0])                     \
	}
/* An embedded struct, or an array of them, with a table of its own. */
#define STATE_STRUCT(type, member, table)                                                          \
	{                                                                                          \
		.name = #member, .offset = offsetof(type, member),                                 \
		.size = sizeof(((type *)0)->member), .count = 1, .kind = STATE_KIND_STRUCT,        \
		.fields = (table)                                                                  \
	}
#define STATE_STRUCT_ARRAY(type, member, table)                                                    \
	{                                                                                          \
		.name = #member, .offset = offsetof(type, member),                                 \
		.size = sizeof(((type *)0)->member[0]), .count = ARRAY_LEN(((type *)0)->member),   \
		.kind = STATE_KIND_STRUCT, .fields = (table)                                       \
	}
#define STATE_STRUCT_ARRAY_OPTIONAL(type, member, table)                                           \
	{                                                                                          \
		.name = #member, .offset = offsetof(type, member),                                 \
		.size = sizeof(((type *)0)->member[0]), .count = ARRAY_LEN(((type *)0)->member),   \
		.kind = STATE_KIND_STRUCT, .optional = true, .fields = (table)                     \
	}
#define STATE_END                                                                                  \
	{                                                                                          \
		.kind = STATE_KIND_END                                                             \
	}

/* A growing or given piece of encoded state. */
struct state_buf {
	u8 *data;
	size_t bytes, room; /* room 0: lent, for reading */
	size_t at;	    /* reading position */
};
void state_buf_fini(struct state_buf *b);
void state_put_bytes(struct state_buf *b, const void *data, size_t bytes);

/* Append the fields of `object` under the section name. */
void state_save(struct state_buf *out, const char *section, const struct state_field *table,
		const void *object);
/* Load the section, which must come next, into the table's fields of `object`
 * (fields only; the rest of the struct is left alone). */
int state_load(struct state_buf *in, const char *section, const struct state_field *table,
	       void *object, struct error *err);
/* Copy the table's fields from one struct to another of the same type. */
void state_copy(const struct state_field *table, void *to, const void *from);
/* True when the table's fields are equal. */
bool state_equal(const struct state_field *table, const void *a, const void *b);

#endif
