/* Multiboot kernels: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2
 * (machine state) and 3.3 (information).
 *
 * Loaded by ELF program headers, 32 bits or 64 (entered in 32-bit mode all the same),
 * or by the addresses in the header.  Thread: control. */
#include "firmware/linuxboot_int.h"

#include "base/bytes.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>

#define SEARCH_BYTES 8192u /* the header lies in here */
#define HEADER_BYTES 32u
#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC  0x2badb002u
#define F_ADDRESSES  (1u << 16)
#define F_UNDERSTOOD 7u /* of the lower 16, which must be: align, memory, video */
#define LOAD_MIN     0x100000u
#define PAGE	     4096u

/* Offsets in the information, and its flags. */
enum {
	INFO_FLAGS = 0,
	INFO_MEM_LOWER = 4,
	INFO_MEM_UPPER = 8,
	INFO_CMDLINE = 16,
	INFO_MODS = 20,
	INFO_MODS_ADDR = 24,
	INFO_MMAP_BYTES = 44,
	INFO_MMAP_ADDR = 48,
	INFO_LOADER = 64,
	INFO_BYTES = 120,
};
enum { HAS_MEMORY = 1, HAS_CMDLINE = 4, HAS_MODS = 8, HAS_MMAP = 0x40, HAS_LOADER = 0x200 };

#define MMAP_ENTRIES 64
#define MMAP_STRIDE  24 /* le32 size of the rest, then what the BIOS writes */
#define MOD_BYTES    16
#define MAX_MODS     64

static const u8 *find_header(const u8 *file, u64 bytes)
{
	for (u64 at = 0; at + 12 <= MIN(bytes, (u64)SEARCH_BYTES); at += 4) {
		const u8 *h = file + at;

		if (load_le32(h) == HEADER_MAGIC &&
		    load_le32(h) + load_le32(h + 4) + load_le32(h + 8) == 0)
			return h;
	}
	return NULL;
}

bool multiboot_probe(const u8 *file, u64 bytes)
{
	return find_header(file, bytes) != NULL;
}

/* --- the image in memory --------------------------------------------------------------- */

static int bad(const struct boot_plan *p, struct error *err, const char *what)
{
	return err_set(err, -ENOEXEC, "multiboot kernel '%s': %s", p->opt->kernel, what);
}

/* Memory for [start, end), zeroed: what the file does not fill is the kernel's bss. */
static int alloc_image(struct boot_plan *p, u64 start, u64 end, struct error *err)
{
	if (start < LOAD_MIN || end <= start || end > p->ram_end)
		return err_set(err, -ENOMEM,
			       "multiboot kernel '%s': loads at 0x%llx..0x%llx, memory is free at "
			       "0x%x..0x%llx",
			       p->opt->kernel, (unsigned long long)start, (unsigned long long)end,
			       LOAD_MIN, (unsigned long long)p->ram_end);
	p->kernel.alloc = try_alloc(end - start);
	if (!p->kernel.alloc)
		return err_set(err, -ENOMEM, "no memory for kernel '%s'", p->opt->kernel);
	p->kernel.data = p->kernel.alloc;
	p->kernel.bytes = end - start;
	p->kernel.addr = (u32)start;
	return 0;
}

/* Section 3.1.3. */
static int load_by_addresses(struct boot_plan *p, const u8 *header, struct error *err)
{
	u64 header_off = (u64)(header - p->file), off;
	u32 header_addr = load_le32(header + 12), load_addr = load_le32(header + 16);
	u64 load_end = load_le32(header + 20), bss_end = load_le32(header + 24);
	int ret;

	if (header_off + HEADER_BYTES > p->file_bytes || header_addr < load_addr ||
	    header_addr - load_addr > header_off)
		return bad(p, err, "load address does not fit the header's place");
	off = header_off - (header_addr - load_addr);
	if (!load_end)
		load_end = load_addr + p->file_bytes - off;
	if (load_end < load_addr || load_end - load_addr > p->file_bytes - off)
		return bad(p, err, "file ends before the data to load does");
	ret = alloc_image(p, load_addr, MAX(load_end, bss_end), err);
	if (ret < 0)
		return ret;
	memcpy(p->kernel.alloc, p->file + off, load_end - load_addr);
	p->entry = load_le32(header + 28);
	return 0;
}

struct segment {
	u64 off, vaddr, paddr, file_bytes, mem_bytes;
};

struct elf {
	bool is_64;
	u64 entry, ph_off;
	u32 ph_bytes, ph_count;
};

static bool parse_elf(const struct boot_plan *p, struct elf *e)
{
	const u8 *f = p->file;
	u16 machine;

	if (p->file_bytes < sizeof(Elf64_Ehdr) || memcmp(f, ELFMAG, SELFMAG) != 0 ||
	    f[EI_DATA] != ELFDATA2LSB || (f[EI_CLASS] != ELFCLASS32 && f[EI_CLASS] != ELFCLASS64))
		return false;
	e->is_64 = f[EI_CLASS] == ELFCLASS64;
	machine = load_le16(f + offsetof(Elf32_Ehdr, e_machine));
	if (e->is_64) {
		e->entry = load_le64(f + offsetof(Elf64_Ehdr, e_entry));
		e->ph_off = load_le64(f + offsetof(Elf64_Ehdr, e_phoff));
		e->ph_bytes = load_le16(f + offsetof(Elf64_Ehdr, e_phentsize));
		e->ph_count = load_le16(f + offsetof(Elf64_Ehdr, e_phnum));
	} else {
		e->entry = load_le32(f + offsetof(Elf32_Ehdr, e_entry));
		e->ph_off = load_le32(f + offsetof(Elf32_Ehdr, e_phoff));
		e->ph_bytes = load_le16(f + offsetof(Elf32_Ehdr, e_phentsize));
		e->ph_count = load_le16(f + offsetof(Elf32_Ehdr, e_phnum));
	}
	return (machine == EM_386 || machine == EM_X86_64) &&
	       e->ph_bytes >= (e->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) &&
	       e->ph_off <= p->file_bytes &&
	       (u64)e->ph_bytes * e->ph_count <= p->file_bytes - e->ph_off;
}

/* True for a segment that is to be loaded. */
static bool get_segment(const struct boot_plan *p, const struct elf *e, u32 i, struct segment *s)
{
	const u8 *ph = p->file + e->ph_off + (u64)i * e->ph_bytes;

	if (load_le32(ph) != PT_LOAD)
		return false;
	if (e->is_64)
		*s = (struct segment){load_le64(ph + offsetof(Elf64_Phdr, p_offset)),
				      load_le64(ph + offsetof(Elf64_Phdr, p_vaddr)),
				      load_le64(ph + offsetof(Elf64_Phdr, p_paddr)),
				      load_le64(ph + offsetof(Elf64_Phdr, p_filesz)),
				      load_le64(ph + offsetof(Elf64_Phdr, p_memsz))};
	else
		*s = (struct segment){load_le32(ph + offsetof(Elf32_Phdr, p_offset)),
				      load_le32(ph + offsetof(Elf32_Phdr, p_vaddr)),
				      load_le32(ph + offsetof(Elf32_Phdr, p_paddr)),
				      load_le32(ph + offsetof(Elf32_Phdr, p_filesz)),
				      load_le32(ph + offsetof(Elf32_Phdr, p_memsz))};
	return s->mem_bytes != 0;
}

static bool segment_ok(const struct boot_plan *p, const struct segment *s, u64 *end)
{
	return s->off <= p->file_bytes && s->file_bytes <= p->file_bytes - s->off &&
	       s->file_bytes <= s->mem_bytes && add_ok(s->paddr, s->mem_bytes, end);
}

static int load_elf(struct boot_plan *p, struct error *err)
{
	u64 start = UINT64_MAX, end = 0, seg_end, entry;
	struct segment s;
	struct elf e;
	int ret;

	if (!parse_elf(p, &e))
		return bad(p, err, "no ELF file for x86, and no addresses in its header");
	entry = e.entry;
	for (u32 i = 0; i < e.ph_count; i++) {
		if (!get_segment(p, &e, i, &s))
			continue;
		if (!segment_ok(p, &s, &seg_end))
			return bad(p, err, "a segment lies beyond the end of the file");
		start = MIN(start, s.paddr);
		end = MAX(end, seg_end);
		/* The entry is a virtual address where that differs. */
		if (e.entry >= s.vaddr && e.entry - s.vaddr < s.mem_bytes)
			entry = e.entry - s.vaddr + s.paddr;
	}
	ret = alloc_image(p, start, end, err);
	if (ret < 0)
		return ret;
	for (u32 i = 0; i < e.ph_count; i++)
		if (get_segment(p, &e, i, &s))
			memcpy(p->kernel.alloc + (s.paddr - start), p->file + s.off, s.file_bytes);
	p->entry = (u32)MIN(entry, (u64)UINT32_MAX);
	return 0;
}

static int load_image(struct boot_plan *p, struct error *err)
{
	const u8 *header = find_header(p->file, p->file_bytes);
	u32 flags = load_le32(header + 4);
	int ret;

	if (flags & 0xffff & ~F_UNDERSTOOD)
		return err_set(err, -ENOEXEC,
			       "multiboot kernel '%s' requires features 0x%x that are unknown",
			       p->opt->kernel, flags & 0xffff & ~F_UNDERSTOOD);
	ret = flags & F_ADDRESSES ? load_by_addresses(p, header, err) : load_elf(p, err);
	if (ret < 0)
		return ret;
	if (p->entry < p->kernel.addr || p->entry - p->kernel.addr >= p->kernel.bytes)
		return bad(p, err, "entry lies outside of what is loaded");
	return 0;
}

/* --- modules ------------------------------------------------------------------------------ */

struct module {
	char *text; /* "path arguments", as the kernel is told */
	struct boot_piece file;
};

/* Next part of "a x,b y": up to a single comma, double ones stand for one.  NULL: no
 * more. */
static char *next_part(const char **text)
{
	const char *from = *text;
	char *part, *to;

	if (!from)
		return NULL;
	part = to = xalloc(strlen(from) + 1);
	for (; *from && (*from != ',' || from[1] == ','); from++) {
		if (*from == ',')
			from++;
		*to++ = *from;
	}
	*text = *from ? from + 1 : NULL;
	return part;
}

static int read_module(struct module *mod, struct error *err)
{
	size_t path_bytes = strcspn(mod->text, " ");
	AUTO_FREE char *path = xstrdup(mod->text);

	path[path_bytes] = 0;
	return boot_read_file("module", path, &mod->file, err);
}

static int add_string(struct boot_plan *p, u32 *addr, const char *a, const char *b,
		      struct error *err)
{
	size_t room = strlen(a) + strlen(b) + 2;
	char *to = (char *)boot_low_alloc(p, room, 1, addr);

	if (!to)
		return err_set(err, -E2BIG, "kernel command line or module list is too long");
	snprintf(to, room, "%s%s%s", a, *b ? " " : "", b);
	return 0;
}

/* Put the files behind the kernel, each on a page of its own. */
static int place_modules(struct boot_plan *p, struct module *mods, unsigned n, struct error *err)
{
	u64 start = align_up(p->kernel.addr + p->kernel.bytes, PAGE), end = start;

	for (unsigned i = 0; i < n; i++) {
		mods[i].file.addr = (u32)end;
		end = align_up(end + mods[i].file.bytes, PAGE);
		if (end > p->ram_end)
			return err_set(err, -ENOMEM, "module '%s' does not fit into memory",
				       mods[i].text);
	}
	p->initrd.alloc = try_alloc(MAX(end - start, (u64)1));
	if (!p->initrd.alloc)
		return err_set(err, -ENOMEM, "no memory for modules");
	for (unsigned i = 0; i < n; i++)
		memcpy(p->initrd.alloc + (mods[i].file.addr - start), mods[i].file.data,
		       mods[i].file.bytes);
	p->initrd.data = p->initrd.alloc;
	p->initrd.bytes = end - start;
	p->initrd.addr = (u32)start;
	return 0;
}

static int describe_modules(struct boot_plan *p, u8 *info, const struct module *mods, unsigned n,
			    struct error *err)
{
	u32 list_addr = 0, text_addr = 0;
	u8 *list = boot_low_alloc(p, (u64)n * MOD_BYTES, 4, &list_addr);
	int ret = 0;

	for (unsigned i = 0; list && i < n && ret == 0; i++) {
		ret = add_string(p, &text_addr, mods[i].text, "", err);
		store_le32(list + i * MOD_BYTES, mods[i].file.addr);
		store_le32(list + i * MOD_BYTES + 4, (u32)(mods[i].file.addr + mods[i].file.bytes));
		store_le32(list + i * MOD_BYTES + 8, ret == 0 ? text_addr : 0);
	}
	store_le32(info + INFO_MODS, n);
	store_le32(info + INFO_MODS_ADDR, list_addr);
	return list ? ret : err_set(err, -E2BIG, "too many modules");
}

static int add_modules(struct boot_plan *p, u8 *info, struct error *err)
{
	struct module mods[MAX_MODS] = {0};
	const char *rest = p->opt->initrd;
	unsigned n = 0;
	int ret = 0;

	while (rest && ret == 0) {
		if (n == MAX_MODS) {
			ret = err_set(err, -E2BIG, "more than %d modules", MAX_MODS);
			break;
		}
		mods[n].text = next_part(&rest);
		ret = read_module(&mods[n++], err);
	}
	if (ret == 0 && n)
		ret = place_modules(p, mods, n, err);
	if (ret == 0 && n)
		ret = describe_modules(p, info, mods, n, err);
	for (unsigned i = 0; i < n; i++) {
		free(mods[i].text);
		free(mods[i].file.alloc);
	}
	return ret;
}

/* --- the information ------------------------------------------------------------------------ */

/* Entries are the BIOS's; their size fields, which it does not write, are ours. */
static void make_memory_map(struct boot_plan *p, u8 *info)
{
	u32 addr;
	u8 *map = boot_low_alloc(p, MMAP_ENTRIES * MMAP_STRIDE, 4, &addr);

	assert(map);
	for (unsigned i = 0; i < MMAP_ENTRIES; i++)
		store_le32(map + (size_t)i * MMAP_STRIDE, MMAP_STRIDE - 4);
	store_le32(info + INFO_MMAP_ADDR, addr);
	p->e820_addr = addr + 4;
	p->e820_stride = MMAP_STRIDE;
	p->e820_max = MMAP_ENTRIES;
	p->count_unit = MMAP_STRIDE;
}

int multiboot_plan(struct boot_plan *p, struct error *err)
{
	u32 info_addr, text_addr = 0;
	int ret = load_image(p, err);
	u8 *info;

	if (ret < 0)
		return ret;
	info = boot_low_alloc(p, INFO_BYTES, 16, &info_addr);
	assert(info);
	make_memory_map(p, info);
	p->count_addr = info_addr + INFO_MMAP_BYTES;
	store_le32(info + INFO_FLAGS, HAS_MEMORY | HAS_CMDLINE | HAS_MODS | HAS_MMAP | HAS_LOADER);
	store_le32(info + INFO_MEM_LOWER, 639);
	store_le32(info + INFO_MEM_UPPER, (u32)((p->ram_bytes - MiB) / KiB));
	ret = add_string(p, &text_addr, "cowvm", "", err);
	store_le32(info + INFO_LOADER, text_addr);
	if (ret == 0)
		ret = add_string(p, &text_addr, p->opt->kernel,
				 p->opt->append ? p->opt->append : "", err);
	store_le32(info + INFO_CMDLINE, text_addr);
	if (ret == 0)
		ret = add_modules(p, info, err);
	p->eax = ENTRY_MAGIC;
	p->ebx = info_addr;
	return ret;
}
