/* A surface to a file: PPM ("P6" of netpbm) by hand, PNG by libpng.
 *
 * libpng comes with the VNC library anyhow and knows filters and chunks; its errors
 * leave by longjmp, so nothing that needs releasing lives in the function it is in.
 * Thread: any. */
#include "devices/display/surface.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void to_bytes(const struct surface *s, u32 y, u8 *line)
{
	const u32 *from = surface_line(s, y);

	for (u32 x = 0; x < s->width; x++) {
		line[3 * x] = (u8)(from[x] >> 16);
		line[3 * x + 1] = (u8)(from[x] >> 8);
		line[3 * x + 2] = (u8)from[x];
	}
}

static int write_ppm(const struct surface *s, FILE *f, u8 *line)
{
	if (fprintf(f, "P6\n%u %u\n255\n", s->width, s->height) < 0)
		return -EIO;
	for (u32 y = 0; y < s->height; y++) {
		to_bytes(s, y, line);
		if (fwrite(line, 3, s->width, f) != s->width)
			return -EIO;
	}
	return 0;
}

static int write_png(const struct surface *s, FILE *f, u8 *line)
{
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
	png_infop info = png ? png_create_info_struct(png) : NULL;

	if (!info || setjmp(png_jmpbuf(png))) {
		png_destroy_write_struct(&png, &info);
		return -EIO;
	}
	png_init_io(png, f);
	png_set_IHDR(png, info, s->width, s->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
	png_set_compression_level(png, 3); /* the machine waits for it */
	png_write_info(png, info);
	for (u32 y = 0; y < s->height; y++) {
		to_bytes(s, y, line);
		png_write_row(png, line);
	}
	png_write_end(png, NULL);
	png_destroy_write_struct(&png, &info);
	return 0;
}

/* Half a picture; a device or a pipe stays. */
static void remove_file(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
		unlink(path);
}

int surface_write(const struct surface *s, const char *path, enum picture_format format,
		  struct error *err)
{
	AUTO_FREE u8 *line = xalloc(3 * (size_t)s->width);
	FILE *f = fopen(path, "wbe");
	int ret;

	if (!f)
		return err_set_errno(err, -errno, "failed to open file '%s'", path);
	ret = format == PICTURE_PNG ? write_png(s, f, line) : write_ppm(s, f, line);
	if (fclose(f) != 0 || ret < 0) {
		remove_file(path);
		return err_set(err, -EIO, "failed to write file '%s'", path);
	}
	return 0;
}
