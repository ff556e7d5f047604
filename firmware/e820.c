/* The memory map that firmware hands on as INT 15h, AX=E820h: "etc/e820".
 *
 * As in the machine: RAM from 0, the rest of it from 4 GiB on.  The holes below
 * 1 MiB are the firmware's own business, but a kernel without one must be told.
 * KVM uses four pages below the BIOS for processors in real mode. */
#include "base/bytes.h"
#include "firmware/internal.h"

#define KVM_PAGES_START 0xfeffc000ull
#define KVM_PAGES_BYTES 0x4000
#define LOW_RAM_END	0x9fc00ull /* extended BIOS data area above */
#define HIGH_RAM_START	0x100000ull
#define BIOS_AREA_START 0xf0000ull

struct file_entry {
	le64 addr, bytes;
	le32 type;
} __attribute__((packed));

static void put(struct blob *b, u64 addr, u64 bytes, enum e820_type type)
{
	const struct file_entry e = {le64_of(addr), le64_of(bytes), le32_of(type)};

	blob_put(b, &e, sizeof(e));
}

void e820_add_file(struct firmware *f)
{
	const struct machine *m = f->machine;
	struct blob b = {.data = NULL};

	put(&b, KVM_PAGES_START, KVM_PAGES_BYTES, E820_RESERVED);
	put(&b, 0, m->ram_below_4g, E820_RAM);
	if (m->ram_above_4g)
		put(&b, 4 * GiB, m->ram_above_4g, E820_RAM);
	fwcfg_add_file(f->fw, "etc/e820", b.data, b.bytes);
	blob_fini(&b);
}

unsigned firmware_e820(const struct machine *m, struct e820_entry *out, unsigned room)
{
	const struct e820_entry all[] = {
		{0, LOW_RAM_END, E820_RAM},
		{LOW_RAM_END, 0xa0000 - LOW_RAM_END, E820_RESERVED},
		{BIOS_AREA_START, HIGH_RAM_START - BIOS_AREA_START, E820_RESERVED},
		{HIGH_RAM_START, m->ram_below_4g - HIGH_RAM_START, E820_RAM},
		{KVM_PAGES_START, KVM_PAGES_BYTES, E820_RESERVED},
		{4 * GiB, m->ram_above_4g, E820_RAM},
	};
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_LEN(all) && n < room; i++)
		if (all[i].bytes)
			out[n++] = all[i];
	return n;
}
