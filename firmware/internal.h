/* What the files of firmware/ share. */
#ifndef FIRMWARE_INTERNAL_H
#define FIRMWARE_INTERNAL_H

#include "firmware/firmware.h"
#include "vmm/core/mem.h"

struct firmware {
	struct machine *machine; /* [const] */
	struct fwcfg *fw;	 /* [const] */
	struct mem_region *rom;	 /* [const] the whole BIOS below 4 GiB; NULL: none */
};

/* A growing piece of memory, zeroed where nothing was put. */
struct blob {
	u8 *data;
	size_t bytes, room;
};
void blob_fini(struct blob *b);
/* Append; returns where.  put_zeros makes room only. */
size_t blob_put(struct blob *b, const void *data, size_t bytes);
size_t blob_put_zeros(struct blob *b, size_t bytes);
void blob_align(struct blob *b, size_t align);
static inline void blob_put_u8(struct blob *b, u8 value)
{
	blob_put(b, &value, 1);
}

/* Sum of bytes modulo 256. */
u8 firmware_sum(const void *data, size_t bytes);

/* Where a reset leaves the power management ports; SeaBIOS puts them there, too. */
#define FIRMWARE_PM_BASE 0x600

void e820_add_file(struct firmware *f);
void acpi_add_files(struct firmware *f, const struct firmware_options *opt);
int smbios_add_files(struct firmware *f, const struct firmware_options *opt, struct error *err);
/* Without a BIOS: write the tables from *next on, and move it.  -ENOSPC, -EFAULT. */
int smbios_place(struct firmware *f, u64 *next);
int acpi_place(struct firmware *f, u64 *next);

#endif
