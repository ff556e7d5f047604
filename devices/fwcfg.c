/* fw_cfg: keyed blobs and named files for the firmware; see fwcfg.h.
 *
 * Port 0x510 takes a 16-bit key, reads of port 0x511 give the blob byte by byte;
 * 0x514 takes the big-endian address of a DMA request (written high half first).
 * Interface: docs/specs/fw_cfg of QEMU, which SeaBIOS and Linux drive it by.
 * Thread: any vCPU, with the device's lock held.  Blobs are constant once the guest
 * has started, so only selection, position and DMA address are state. */
#include "devices/fwcfg.h"

#include "base/bytes.h"
#include "base/log.h"

#include <errno.h>

#define PORT_SELECT 0x510 /* and data at the next port */
#define PORT_DMA    0x514

#define ID_TRADITIONAL 1
#define ID_DMA	       2

#define FILE_FIRST_KEY 0x20
#define FILE_NAME_MAX  56 /* with the NUL */
#define FILE_KEY_END   0x4000

#define DMA_ERROR  0x01
#define DMA_READ   0x02
#define DMA_SKIP   0x04
#define DMA_SELECT 0x08
#define DMA_WRITE  0x10

static const u8 dma_signature[8] = "QEMU CFG";

struct item {
	u16 key;
	char *name; /* NULL: not a file */
	u8 *data;
	size_t bytes;
};

struct dma_request {
	be32 control; /* key to select in the upper half */
	be32 length;
	be64 address;
};

struct dir_entry {
	be32 bytes;
	be16 key;
	u8 reserved[2];
	char name[FILE_NAME_MAX];
};

struct fwcfg {
	struct device dev;
	struct bus_region *select_ports, *dma_ports; /* [const] */
	struct item *items;			     /* [const] once running */
	unsigned n_items;
	u16 key;	 /* [dev.lock] selected */
	u32 at;		 /* [dev.lock] position in the blob */
	u64 dma_address; /* [dev.lock] halves as written so far */
};

static struct fwcfg *to_fwcfg(struct device *dev)
{
	return container_of(dev, struct fwcfg, dev);
}

struct fwcfg *fwcfg_of(struct device *dev)
{
	assert(dev->cls == &fwcfg_class);
	return to_fwcfg(dev);
}

/* --- contents ----------------------------------------------------------------- */

static struct item *find_key(struct fwcfg *fw, u16 key)
{
	for (unsigned i = 0; i < fw->n_items; i++)
		if (fw->items[i].key == key)
			return &fw->items[i];
	return NULL;
}

static struct item *find_name(struct fwcfg *fw, const char *name)
{
	for (unsigned i = 0; i < fw->n_items; i++)
		if (fw->items[i].name && !strcmp(fw->items[i].name, name))
			return &fw->items[i];
	return NULL;
}

static struct item *append(struct fwcfg *fw, const void *data, size_t bytes)
{
	struct item *item;

	assert(bytes <= UINT32_MAX);
	fw->items = xrealloc(fw->items, (fw->n_items + 1) * sizeof(*fw->items));
	item = &fw->items[fw->n_items++];
	*item = (struct item){.data = xalloc(bytes), .bytes = bytes};
	if (bytes)
		memcpy(item->data, data, bytes);
	return item;
}

void fwcfg_add_bytes(struct fwcfg *fw, u16 key, const void *data, size_t bytes)
{
	assert(!find_key(fw, key));
	append(fw, data, bytes)->key = key;
}

void fwcfg_add_u16(struct fwcfg *fw, u16 key, u16 value)
{
	le16 v = le16_of(value);

	fwcfg_add_bytes(fw, key, &v, sizeof(v));
}

void fwcfg_add_u32(struct fwcfg *fw, u16 key, u32 value)
{
	le32 v = le32_of(value);

	fwcfg_add_bytes(fw, key, &v, sizeof(v));
}

void fwcfg_add_u64(struct fwcfg *fw, u16 key, u64 value)
{
	le64 v = le64_of(value);

	fwcfg_add_bytes(fw, key, &v, sizeof(v));
}

/* Files come first, by name; then the rest. */
static int by_name(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (!x->name || !y->name)
		return !x->name - !y->name;
	return strcmp(x->name, y->name);
}

/* Number the files in order of name and write the directory anew. */
static void rebuild_directory(struct fwcfg *fw)
{
	struct item *dir;
	unsigned n = 0;

	qsort(fw->items, fw->n_items, sizeof(*fw->items), by_name);
	while (n < fw->n_items && fw->items[n].name)
		n++;
	assert(FILE_FIRST_KEY + n <= FILE_KEY_END);
	dir = find_key(fw, FWCFG_FILE_DIR);
	free(dir->data);
	dir->bytes = sizeof(be32) + n * sizeof(struct dir_entry);
	dir->data = xalloc(dir->bytes);
	store_be32(dir->data, n);
	for (unsigned i = 0; i < n; i++) {
		struct dir_entry entry = {.bytes = be32_of((u32)fw->items[i].bytes)};

		fw->items[i].key = (u16)(FILE_FIRST_KEY + i);
		entry.key = be16_of(fw->items[i].key);
		memcpy(entry.name, fw->items[i].name, strlen(fw->items[i].name));
		memcpy(dir->data + sizeof(be32) + i * sizeof(entry), &entry, sizeof(entry));
	}
}

void fwcfg_add_file(struct fwcfg *fw, const char *name, const void *data, size_t bytes)
{
	struct item *item;

	assert(strlen(name) < FILE_NAME_MAX && !find_name(fw, name));
	item = append(fw, data, bytes);
	item->name = xstrdup(name);
	rebuild_directory(fw);
}

const void *fwcfg_file(struct fwcfg *fw, const char *name, size_t *bytes)
{
	const struct item *item = find_name(fw, name);

	if (!item)
		return NULL;
	*bytes = item->bytes;
	return item->data;
}

/* --- registers ---------------------------------------------------------------- */

static void select_key(struct fwcfg *fw, u16 key)
{
	TRACE(TRACE_FWCFG, "%s: key 0x%x", fw->dev.id, key);
	fw->key = key;
	fw->at = 0;
}

static u64 data_read(void *owner, u64 off, unsigned size)
{
	struct fwcfg *fw = to_fwcfg(owner);
	const struct item *item = find_key(fw, fw->key);

	if (!item || fw->at >= item->bytes)
		return 0;
	return item->data[fw->at++];
}

static void select_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct fwcfg *fw = to_fwcfg(owner);

	if (off == 0 && size == 2)
		select_key(fw, (u16)value);
	/* Bytes written to the data port go nowhere, as on the real interface. */
}

/* The wide form is for the selector; reading it gives two bytes of the blob. */
static u64 select_read(void *owner, u64 off, unsigned size)
{
	u64 value = data_read(owner, off, 1);

	return size == 2 ? value | data_read(owner, off, 1) << 8 : value;
}

static const struct bus_ops select_ops = {
	.read = select_read,
	.write = select_write,
	.min_size = 1,
	.max_size = 2,
};

/* Copy the selected blob on from the position; zeros beyond its end. */
static int dma_copy_out(struct fwcfg *fw, const struct item *item, u64 gpa, u64 bytes)
{
	static const u8 zeros[4096];
	struct mem *mem = fw->dev.machine->mem;
	u64 have = item && fw->at < item->bytes ? MIN(bytes, item->bytes - fw->at) : 0;
	int ret = 0;

	if (have)
		ret = mem_write(mem, gpa, item->data + fw->at, have);
	for (u64 done = have; done < bytes && ret == 0;) {
		u64 part = MIN(bytes - done, (u64)sizeof(zeros));

		ret = mem_write(mem, gpa + done, zeros, part);
		done += part;
	}
	return ret;
}

/* Returns the control word that the guest will find. */
static u32 dma_run(struct fwcfg *fw, u32 control, u64 gpa, u32 bytes)
{
	const struct item *item;
	u64 end;

	if (control & DMA_SELECT)
		select_key(fw, (u16)(control >> 16));
	if (!(control & (DMA_READ | DMA_WRITE | DMA_SKIP)))
		return 0;
	item = find_key(fw, fw->key);
	if (control & DMA_WRITE && !(control & DMA_READ))
		return DMA_ERROR; /* nothing here is writable */
	if (control & DMA_READ) {
		if (!add_ok(gpa, bytes, &end) || dma_copy_out(fw, item, gpa, bytes) < 0) {
			dev_guest_error(&fw->dev, "DMA to 0x%llx+0x%x is not memory",
					(unsigned long long)gpa, bytes);
			return DMA_ERROR;
		}
	}
	if (item)
		fw->at = (u32)MIN((u64)fw->at + bytes, (u64)item->bytes);
	return 0;
}

static void dma_start(struct fwcfg *fw)
{
	struct mem *mem = fw->dev.machine->mem;
	u64 at = fw->dma_address;
	struct dma_request request;
	be32 result;

	fw->dma_address = 0;
	if (mem_read(mem, at, &request, sizeof(request)) < 0) {
		dev_guest_error(&fw->dev, "DMA request at 0x%llx is not memory",
				(unsigned long long)at);
		return;
	}
	result = be32_of(dma_run(fw, be32_get(request.control), be64_get(request.address),
				 be32_get(request.length)));
	/* The request could have pointed at itself, but it is still memory. */
	(void)mem_write(mem, at, &result, sizeof(result));
}

static u64 dma_read(void *owner, u64 off, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)dma_signature[off + i] << (8 * i);
	return value;
}

static void dma_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct fwcfg *fw = to_fwcfg(owner);

	if (size == 4 && off == 0) {
		fw->dma_address = (u64)be32toh((u32)value) << 32;
	} else if (size == 4 && off == 4) {
		fw->dma_address |= be32toh((u32)value);
		dma_start(fw);
	}
}

static const struct bus_ops dma_ops = {.read = dma_read, .write = dma_write};

/* --- class -------------------------------------------------------------------- */

static int fwcfg_init(struct device *dev, struct error *err)
{
	struct fwcfg *fw = to_fwcfg(dev);
	int ret;

	ret = dev_map_pio(dev, &fw->select_ports, PORT_SELECT, 2, &select_ops, err);
	if (ret < 0)
		return ret;
	ret = dev_map_pio(dev, &fw->dma_ports, PORT_DMA, 8, &dma_ops, err);
	if (ret < 0) {
		bus_unmap(fw->select_ports);
		return ret;
	}
	fwcfg_add_bytes(fw, FWCFG_SIGNATURE, "QEMU", 4);
	fwcfg_add_u32(fw, FWCFG_ID, ID_TRADITIONAL | ID_DMA);
	fwcfg_add_u32(fw, FWCFG_FILE_DIR, 0); /* no files yet; replaced by the first */
	return 0;
}

static void fwcfg_fini(struct device *dev)
{
	struct fwcfg *fw = to_fwcfg(dev);

	bus_unmap(fw->dma_ports);
	bus_unmap(fw->select_ports);
	for (unsigned i = 0; i < fw->n_items; i++) {
		free(fw->items[i].name);
		free(fw->items[i].data);
	}
	free(fw->items);
}

static void fwcfg_reset(struct device *dev)
{
	struct fwcfg *fw = to_fwcfg(dev);

	fw->key = FWCFG_SIGNATURE;
	fw->at = 0;
	fw->dma_address = 0;
}

static const struct state_field fwcfg_state[] = {
	STATE(struct fwcfg, key),
	STATE(struct fwcfg, at),
	STATE(struct fwcfg, dma_address),
	STATE_END,
};

const struct device_class fwcfg_class = {
	.name = "fw_cfg_io",
	.help = "tables and files for the firmware",
	.size = sizeof(struct fwcfg),
	.bus = DEVICE_ON_BOARD,
	.init = fwcfg_init,
	.reset = fwcfg_reset,
	.fini = fwcfg_fini,
	.state = fwcfg_state,
};
