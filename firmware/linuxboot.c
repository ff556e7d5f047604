/* Direct kernel boot: reads the files, has a kernel format make the plan, and hands
 * ROM and pieces to the BIOS by fw_cfg.
 *
 * The BIOS runs first in any case: it sets up the devices and the ACPI tables and
 * knows the memory map.  Then it boots our option ROM (linuxboot_rom.S), which
 * fetches the pieces under the classic fw_cfg keys by DMA.  Thread: control. */
#include "firmware/linuxboot_int.h"

#include "base/bytes.h"
#include "base/io.h"

#include <errno.h>

#define ROM_NAME     "genroms/linuxboot.bin"
#define ROM_CHECKSUM 6 /* offsets in the ROM */
#define ROM_PNP	     0x1a
#define ROM_PARAMS   0x20
#define PNP_BYTES    32
#define PNP_CHECKSUM 9
#define MAX_FILE     (2 * GiB)
#define MAX_LOADS    4

static const u8 rom_image[] = {
#include <linuxboot_rom.inc> /* made from linuxboot_rom.S */
};

/* As linuxboot_rom.S has it at ROM_PARAMS. */
struct rom_params {
	u8 magic[8];
	le32 e820_addr, e820_stride, e820_max, count_addr, count_unit;
	le32 long_mode, entry, eax, ebx, esi, page_tables;
	le32 n_loads;
	struct {
		le32 key, bytes;
		le64 addr;
	} loads[MAX_LOADS];
};
_Static_assert(sizeof(struct rom_params) == 0x38 + MAX_LOADS * 16, "layout of linuxboot_rom.S");

/* --- helpers of the formats -------------------------------------------------------- */

u8 *boot_low_alloc(struct boot_plan *p, u64 bytes, u64 align, u32 *addr)
{
	u64 at = align_up(p->low.bytes, align);
	u8 *room;

	if (!p->low.alloc) {
		p->low.alloc = xalloc(BOOT_LOW_BYTES);
		p->low.data = p->low.alloc;
		p->low.addr = BOOT_LOW_ADDR;
	}
	if (bytes > BOOT_LOW_BYTES || at > BOOT_LOW_BYTES - bytes)
		return NULL;
	room = p->low.alloc + at;
	p->low.bytes = at + bytes;
	*addr = BOOT_LOW_ADDR + (u32)at;
	return room;
}

int boot_read_file(const char *what, const char *path, struct boot_piece *out, struct error *err)
{
	int ret = sys_read_file(path, MAX_FILE, &out->alloc, &out->bytes, err);

	if (ret < 0)
		return err_prefix(err, "could not load %s '%s'", what, path);
	out->data = out->alloc;
	return 0;
}

/* --- the ROM ------------------------------------------------------------------------- */

static u8 checksum(const u8 *data, size_t bytes)
{
	u8 sum = 0;

	while (bytes--)
		sum += *data++;
	return (u8)-sum;
}

static void add_piece(struct fwcfg *fw, struct rom_params *params, u16 key,
		      const struct boot_piece *piece)
{
	u32 n = le32_get(params->n_loads);

	if (!piece->bytes)
		return;
	assert(n < MAX_LOADS && piece->bytes <= UINT32_MAX);
	fwcfg_add_bytes(fw, key, piece->data, piece->bytes);
	params->loads[n].key = le32_of(key);
	params->loads[n].bytes = le32_of((u32)piece->bytes);
	params->loads[n].addr = le64_of(piece->addr);
	params->n_loads = le32_of(n + 1);
}

static void add_rom(struct fwcfg *fw, const struct boot_plan *p)
{
	u8 rom[sizeof(rom_image)];
	struct rom_params params;
	u8 *pnp;

	memcpy(rom, rom_image, sizeof(rom));
	memcpy(&params, rom + ROM_PARAMS, sizeof(params));
	assert(!memcmp(params.magic, "cowboot1", sizeof(params.magic)));
	params.e820_addr = le32_of(p->e820_addr);
	params.e820_stride = le32_of(p->e820_stride);
	params.e820_max = le32_of(p->e820_max);
	params.count_addr = le32_of(p->count_addr);
	params.count_unit = le32_of(p->count_unit);
	params.long_mode = le32_of(p->long_mode);
	params.entry = le32_of(p->entry);
	params.eax = le32_of(p->eax);
	params.ebx = le32_of(p->ebx);
	params.esi = le32_of(p->esi);
	params.page_tables = le32_of(p->page_tables);
	add_piece(fw, &params, FWCFG_KERNEL_DATA, &p->kernel);
	add_piece(fw, &params, FWCFG_INITRD_DATA, &p->initrd);
	add_piece(fw, &params, FWCFG_SETUP_DATA, &p->low);
	memcpy(rom + ROM_PARAMS, &params, sizeof(params));
	pnp = rom + load_le16(rom + ROM_PNP);
	pnp[PNP_CHECKSUM] = checksum(pnp, PNP_BYTES);
	rom[ROM_CHECKSUM] = checksum(rom, sizeof(rom));
	fwcfg_add_file(fw, ROM_NAME, rom, sizeof(rom));
}

/* --- front door ------------------------------------------------------------------------ */

static int make_plan(struct boot_plan *p, struct error *err)
{
	if (bzimage_probe(p->file, p->file_bytes))
		return bzimage_plan(p, err);
	if (multiboot_probe(p->file, p->file_bytes))
		return multiboot_plan(p, err);
	return err_set(err, -ENOEXEC, "'%s' is neither a bzImage nor a multiboot kernel",
		       p->opt->kernel);
}

int linuxboot_setup(struct fwcfg *fw, const struct machine *m, const struct linuxboot_options *opt,
		    struct error *err)
{
	struct boot_piece file = {.alloc = NULL};
	struct boot_plan p = {
		.opt = opt,
		.ram_bytes = m->ram_below_4g,
		.ram_end = m->ram_below_4g > 2 * BOOT_BIOS_BYTES
				   ? align_down(m->ram_below_4g - BOOT_BIOS_BYTES, 4096)
				   : 0,
	};
	int ret = boot_read_file("kernel", opt->kernel, &file, err);

	if (ret < 0)
		return ret;
	p.file = file.data;
	p.file_bytes = file.bytes;
	ret = make_plan(&p, err);
	if (ret == 0)
		add_rom(fw, &p);
	free(p.kernel.alloc);
	free(p.initrd.alloc);
	free(p.low.alloc);
	free(file.alloc);
	return ret;
}
