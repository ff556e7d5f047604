/* SeaBIOS: finding it, mapping it, and what it asks fw_cfg for.
 *
 * The image lies read-only right below 4 GiB, where the processor starts.  What a
 * real chipset shadows, the last 128 KiB, is copied to RAM at 0xe0000 at reset; the
 * copy is what the BIOS keeps its variables in, so a warm start needs a fresh one.
 * File names: SeaBIOS's docs/Runtime_config.  Thread: control. */
#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "firmware/internal.h"

#include <errno.h>
#include <unistd.h>

#define BIOS_FILE	"bios-256k.bin"
#define BIOS_MAX_BYTES	(16 * MiB)
#define BIOS_UNIT_BYTES (64 * KiB)
#define COPY_START	0xe0000ull
#define COPY_MAX_BYTES	(128 * KiB)

#define SERIAL_PORT 0x3f8 /* where the firmware talks without graphics */

/* Where packages install firmware. */
static const char *const places[] = {
	"/usr/share/seabios",	    "/usr/share/qemu",	     "/usr/lib/ipxe/qemu",
	"/usr/local/share/seabios", "/usr/local/share/qemu",
};

/* Takes path; gives it on when the file can be read. */
static bool keep_if_readable(char *path, char **out)
{
	if (access(path, R_OK) != 0) {
		free(path);
		return false;
	}
	*out = path;
	return true;
}

int firmware_find(char **path, const char *name, const char *const *dirs, unsigned n_dirs,
		  struct error *err)
{
	if (strchr(name, '/') || access(name, R_OK) == 0) {
		if (keep_if_readable(xstrdup(name), path))
			return 0;
		return err_set(err, -ENOENT, "cannot read firmware file '%s'", name);
	}
	for (unsigned i = 0; i < n_dirs; i++)
		if (keep_if_readable(xasprintf("%s/%s", dirs[i], name), path))
			return 0;
	for (unsigned i = 0; i < ARRAY_LEN(places); i++)
		if (keep_if_readable(xasprintf("%s/%s", places[i], name), path))
			return 0;
	return err_set(err, -ENOENT,
		       "firmware file '%s' is not in -L directories or %s (package seabios)", name,
		       places[0]);
}

/* --- the image ---------------------------------------------------------------- */

static int map_bios(struct firmware *f, const char *path, struct error *err)
{
	struct mem_place place = {.name = "bios", .kind = MEM_ROM};
	u8 *data AUTO_FREE = NULL;
	u64 bytes;
	int ret;

	ret = sys_read_file(path, BIOS_MAX_BYTES, &data, &bytes, err);
	if (ret < 0)
		return err_prefix(err, "BIOS");
	if (!bytes || !is_aligned(bytes, BIOS_UNIT_BYTES))
		return err_set(err, -EINVAL,
			       "BIOS '%s' has %llu bytes, expected a multiple of 64 KiB", path,
			       (unsigned long long)bytes);
	place.bytes = bytes;
	place.gpa = 4 * GiB - bytes;
	ret = mem_add(f->machine->mem, &f->rom, &place, err);
	if (ret < 0)
		return ret;
	memcpy(mem_region_host(f->rom), data, bytes);
	TRACE(TRACE_FIRMWARE, "BIOS '%s' at 0x%llx", path, (unsigned long long)place.gpa);
	return 0;
}

static int load_bios(struct firmware *f, const struct firmware_options *opt, struct error *err)
{
	const char *name = opt->bios ? opt->bios : BIOS_FILE;
	char *path AUTO_FREE = NULL;
	int ret = firmware_find(&path, name, opt->dirs, opt->n_dirs, err);

	return ret < 0 ? ret : map_bios(f, path, err);
}

void firmware_reset(struct firmware *f)
{
	u64 bytes, skip;
	int ret;

	if (!f->rom)
		return;
	bytes = MIN(mem_region_bytes(f->rom), (u64)COPY_MAX_BYTES);
	skip = mem_region_bytes(f->rom) - bytes;
	ret = mem_write(f->machine->mem, COPY_START + COPY_MAX_BYTES - bytes,
			(u8 *)mem_region_host(f->rom) + skip, bytes);
	if (ret < 0)
		log_error("BIOS: no RAM below 1 MiB to copy it to");
}

/* --- what it is told ---------------------------------------------------------- */

static void add_int_file(struct firmware *f, const char *name, u64 value, size_t bytes)
{
	le64 v = le64_of(value);

	fwcfg_add_file(f->fw, name, &v, bytes);
}

static void add_boot_files(struct firmware *f, const struct firmware_options *opt)
{
	struct blob b = {.data = NULL};

	if (opt->boot_files && *opt->boot_files) {
		blob_put(&b, opt->boot_files, strlen(opt->boot_files));
		blob_put_u8(&b, 0);
		fwcfg_add_file(f->fw, "bootorder", b.data, b.bytes);
		blob_fini(&b);
	}
	fwcfg_add_u16(f->fw, FWCFG_BOOT_MENU, opt->boot_menu);
	if (opt->splash_ms != FIRMWARE_NOT_GIVEN)
		add_int_file(f, "etc/boot-menu-wait", opt->splash_ms, 2);
	if (opt->retry_ms != FIRMWARE_NOT_GIVEN)
		add_int_file(f, "etc/boot-fail-wait", opt->retry_ms, 4);
	if (opt->no_graphics)
		add_int_file(f, "etc/sercon-port", SERIAL_PORT, 2);
}

static void add_machine_keys(struct firmware *f, const struct firmware_options *opt)
{
	/* S3, S4 and S5 with their sleep types; bit 7: there is such a state. */
	static const u8 system_states[] = {0x80, 0, 0, 1, 2, 0x80};
	static const u8 no_uuid[16];
	const struct machine *m = f->machine;

	fwcfg_add_bytes(f->fw, FWCFG_UUID, opt->uuid ? opt->uuid : no_uuid, sizeof(no_uuid));
	fwcfg_add_u64(f->fw, FWCFG_RAM_SIZE, m->ram_below_4g + m->ram_above_4g);
	fwcfg_add_u16(f->fw, FWCFG_NOGRAPHIC, opt->no_graphics);
	fwcfg_add_u16(f->fw, FWCFG_NB_CPUS, (u16)m->cpus);
	/* One more than the highest APIC ID. */
	fwcfg_add_u16(f->fw, FWCFG_MAX_CPUS, (u16)(machine_apic_id(m, m->max_cpus - 1) + 1));
	fwcfg_add_u32(f->fw, FWCFG_IRQ0_OVERRIDE, 1);
	fwcfg_add_file(f->fw, "etc/system-states", system_states, sizeof(system_states));
}

int firmware_new(struct firmware **out, struct machine *m, struct fwcfg *fw,
		 const struct firmware_options *opt, struct error *err)
{
	struct firmware *f = xnew(struct firmware);
	int ret = 0;

	f->machine = m;
	f->fw = fw;
	if (!opt->no_bios)
		ret = load_bios(f, opt, err);
	if (ret < 0) {
		free(f);
		return ret;
	}
	acpi_add_files(f, opt);
	add_machine_keys(f, opt);
	add_boot_files(f, opt);
	e820_add_file(f);
	ret = smbios_add_files(f, opt, err);
	if (ret < 0) {
		free(f);
		return ret;
	}
	*out = f;
	return 0;
}

void firmware_free(struct firmware *f)
{
	free(f);
}
