/* Between linuxboot.c and the kernel formats: what to load where, how to enter. */
#ifndef FIRMWARE_LINUXBOOT_INT_H
#define FIRMWARE_LINUXBOOT_INT_H

#include "firmware/linuxboot.h"

/* Where the small pieces go: zero page or multiboot information, command line, page
 * tables.  Below the BIOS's extended data, above what the ROM uses. */
#define BOOT_LOW_ADDR  0x10000u
#define BOOT_LOW_BYTES 0x60000u

/* The top of low memory holds what the BIOS made: ACPI tables, its own data. */
#define BOOT_BIOS_BYTES (1 * MiB)

struct boot_piece {
	u8 *alloc;	/* free() it, or NULL */
	const u8 *data; /* in alloc or in somebody else's */
	u64 bytes;
	u32 addr; /* in the guest */
};

struct boot_plan {
	const struct linuxboot_options *opt; /* given */
	const u8 *file;			     /* given: the kernel's */
	u64 file_bytes;
	u64 ram_end; /* given: of the memory below 4 GiB that kernels may use */
	u64 ram_bytes;

	struct boot_piece kernel, initrd, low;
	u32 entry, eax, ebx, esi; /* registers at the kernel's first instruction */
	bool long_mode;		  /* with identity page tables at page_tables */
	u32 page_tables;
	/* Where the BIOS's memory map goes, and its count times count_unit. */
	u32 e820_addr, e820_stride, e820_max, count_addr, count_unit;
};

/* Is it one?  *_plan: fill in the rest of the plan. */
bool bzimage_probe(const u8 *file, u64 bytes);
int bzimage_plan(struct boot_plan *p, struct error *err);
bool multiboot_probe(const u8 *file, u64 bytes);
int multiboot_plan(struct boot_plan *p, struct error *err);

/* Room in the low piece: made whole and zeroed at the first call; NULL when full. */
u8 *boot_low_alloc(struct boot_plan *p, u64 bytes, u64 align, u32 *addr);
/* Read a file into a piece. */
int boot_read_file(const char *what, const char *path, struct boot_piece *out, struct error *err);

#endif
