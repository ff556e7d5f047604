/* The few words of ACPI machine language that a generated table needs.
 *
 * ACPI 6.4, chapter 20.  Lengths always take the four-byte form, so that they can
 * be filled in when the package ends. */
#include "base/bytes.h"
#include "firmware/acpi_internal.h"

#define AML_NAME	0x08
#define AML_DWORD	0x0c
#define AML_STRING	0x0d
#define AML_SCOPE	0x10
#define AML_EXTENDED	0x5b
#define AML_DEVICE	0x82 /* after AML_EXTENDED */
#define AML_ROOT	0x5c
#define SEGMENT_BYTES	4
#define LENGTH_BYTES	4
#define LENGTH_3_FOLLOW 0xc0

void aml_end(struct blob *b, size_t package)
{
	u32 length = (u32)(b->bytes - package);
	u8 *p = b->data + package;

	assert(length < 1u << 28);
	p[0] = (u8)(LENGTH_3_FOLLOW | (length & 0xf));
	p[1] = (u8)(length >> 4);
	p[2] = (u8)(length >> 12);
	p[3] = (u8)(length >> 20);
}

size_t aml_begin_scope(struct blob *b, const char name[4])
{
	size_t package;

	blob_put_u8(b, AML_SCOPE);
	package = blob_put_zeros(b, LENGTH_BYTES);
	blob_put_u8(b, AML_ROOT);
	blob_put(b, name, SEGMENT_BYTES);
	return package;
}

size_t aml_begin_device(struct blob *b, const char name[4])
{
	size_t package;

	blob_put_u8(b, AML_EXTENDED);
	blob_put_u8(b, AML_DEVICE);
	package = blob_put_zeros(b, LENGTH_BYTES);
	blob_put(b, name, SEGMENT_BYTES);
	return package;
}

static void begin_name(struct blob *b, const char name[4], u8 op)
{
	blob_put_u8(b, AML_NAME);
	blob_put(b, name, SEGMENT_BYTES);
	blob_put_u8(b, op);
}

void aml_name_u32(struct blob *b, const char name[4], u32 value)
{
	le32 v = le32_of(value);

	begin_name(b, name, AML_DWORD);
	blob_put(b, &v, sizeof(v));
}

void aml_name_string(struct blob *b, const char name[4], const char *value)
{
	begin_name(b, name, AML_STRING);
	blob_put(b, value, strlen(value) + 1);
}
