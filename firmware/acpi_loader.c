/* The script that has firmware place and link the tables: "etc/table-loader".
 *
 * Each step is 128 bytes: a command and its arguments, padded.  Allocation comes
 * first for each file, checksums after the pointers that they cover.  The script is
 * run by the BIOS, or, when a kernel is entered directly, by firmware_place_tables.
 * Interface: QEMU's ACPI linker/loader, as SeaBIOS implements it (romfile_loader). */
#include "base/bytes.h"
#include "base/log.h"
#include "firmware/acpi_internal.h"

#include <errno.h>

#define NAME_BYTES 56

enum { STEP_ALLOCATE = 1, STEP_POINTER = 2, STEP_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_LOW = 2 }; /* anywhere; where the RSDP is looked for */

struct step {
	le32 command;
	union {
		struct {
			char file[NAME_BYTES];
			le32 align;
			u8 zone;
		} __attribute__((packed)) allocate;
		struct {
			char file[NAME_BYTES], to[NAME_BYTES];
			le32 at;
			u8 size;
		} __attribute__((packed)) pointer;
		struct {
			char file[NAME_BYTES];
			le32 at, start, bytes;
		} __attribute__((packed)) checksum;
		u8 padding[124];
	};
} __attribute__((packed));
_Static_assert(sizeof(struct step) == 128, "loader step");

/* --- writing ------------------------------------------------------------------ */

static void set_name(char to[NAME_BYTES], const char *file)
{
	assert(strlen(file) < NAME_BYTES);
	memcpy(to, file, strlen(file) + 1);
}

void loader_allocate(struct blob *script, const char *file, u32 align, bool low)
{
	struct step s = {.command = le32_of(STEP_ALLOCATE)};

	set_name(s.allocate.file, file);
	s.allocate.align = le32_of(align);
	s.allocate.zone = low ? ZONE_LOW : ZONE_HIGH;
	blob_put(script, &s, sizeof(s));
}

void loader_pointer(struct blob *script, const char *file, u32 at, u8 size, const char *to)
{
	struct step s = {.command = le32_of(STEP_POINTER)};

	set_name(s.pointer.file, file);
	set_name(s.pointer.to, to);
	s.pointer.at = le32_of(at);
	s.pointer.size = size;
	blob_put(script, &s, sizeof(s));
}

void loader_checksum(struct blob *script, const char *file, u32 at, u32 start, u32 bytes)
{
	struct step s = {.command = le32_of(STEP_CHECKSUM)};

	set_name(s.checksum.file, file);
	s.checksum.at = le32_of(at);
	s.checksum.start = le32_of(start);
	s.checksum.bytes = le32_of(bytes);
	blob_put(script, &s, sizeof(s));
}

/* --- running it ourselves ----------------------------------------------------- */

#define PLACE_START 0xf0000ull /* where a kernel looks for the pointers */
#define PLACE_END   0x100000ull
#define MAX_FILES   4

/* A file on its way into memory: our copy, and where it will lie. */
struct placed {
	const char *name;
	struct blob copy;
	u64 gpa;
};
struct loader {
	struct fwcfg *fw;
	struct placed files[MAX_FILES];
	unsigned n_files;
	u64 next;
};

static struct placed *find_placed(struct loader *l, const char *name)
{
	for (unsigned i = 0; i < l->n_files; i++)
		if (!strcmp(l->files[i].name, name))
			return &l->files[i];
	return NULL;
}

static int place_file(struct loader *l, const char *name, u32 align)
{
	size_t bytes;
	const void *data = fwcfg_file(l->fw, name, &bytes);
	struct placed *p = &l->files[l->n_files];

	assert(data && l->n_files < MAX_FILES);
	l->next = align_up(l->next, align);
	if (l->next + bytes > PLACE_END)
		return -ENOSPC;
	*p = (struct placed){.name = name, .gpa = l->next};
	blob_put(&p->copy, data, bytes);
	l->n_files++;
	l->next += bytes;
	return 0;
}

static void fix_pointer(struct loader *l, const struct step *s)
{
	struct placed *in = find_placed(l, s->pointer.file), *to = find_placed(l, s->pointer.to);
	u8 *at = in->copy.data + le32_get(s->pointer.at);

	if (s->pointer.size == 4)
		store_le32(at, load_le32(at) + (u32)to->gpa);
	else
		store_le64(at, load_le64(at) + to->gpa);
}

static void fix_checksum(struct loader *l, const struct step *s)
{
	u8 *data = find_placed(l, s->checksum.file)->copy.data;
	u8 *at = data + le32_get(s->checksum.at);

	*at = 0;
	*at = (u8)-firmware_sum(data + le32_get(s->checksum.start), le32_get(s->checksum.bytes));
}

static int run_step(struct loader *l, const struct step *s)
{
	switch (le32_get(s->command)) {
	case STEP_ALLOCATE: return place_file(l, s->allocate.file, le32_get(s->allocate.align));
	case STEP_POINTER: fix_pointer(l, s); return 0;
	default: fix_checksum(l, s); return 0;
	}
}

static int write_files(struct loader *l, struct mem *mem)
{
	int ret = 0;

	for (unsigned i = 0; i < l->n_files && ret == 0; i++)
		ret = mem_write(mem, l->files[i].gpa, l->files[i].copy.data,
				l->files[i].copy.bytes);
	return ret;
}

int acpi_place(struct firmware *f, u64 *next)
{
	struct loader l = {.fw = f->fw, .next = *next};
	const struct step *steps;
	size_t bytes;
	int ret = 0;

	steps = fwcfg_file(f->fw, ACPI_LOADER_FILE, &bytes);
	assert(steps);
	for (size_t i = 0; i < bytes / sizeof(*steps) && ret == 0; i++)
		ret = run_step(&l, &steps[i]);
	if (ret == 0)
		ret = write_files(&l, f->machine->mem);
	for (unsigned i = 0; i < l.n_files; i++)
		blob_fini(&l.files[i].copy);
	*next = l.next;
	return ret;
}

int firmware_place_tables(struct firmware *f, struct error *err)
{
	u64 next = PLACE_START;
	int ret = smbios_place(f, &next);

	if (ret == 0)
		ret = acpi_place(f, &next);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot place ACPI and SMBIOS tables below 1 MiB");
	TRACE(TRACE_FIRMWARE, "tables at 0x%llx-0x%llx", PLACE_START, (unsigned long long)next);
	return 0;
}
