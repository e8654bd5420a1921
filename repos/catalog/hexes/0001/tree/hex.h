#ifndef HEX_H
#define HEX_H

#include <stddef.h>

/* Turns hexadecimal text into bytes. Returns how many there are, or -1 where the text has something else than
 * digits, or more than `size` bytes. */
int hex_decode(const char *text, unsigned char *out, size_t size);

#endif
