#include "hex.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int hex_decode(const char *text, unsigned char *out, size_t size)
{
    size_t used = 0;

    while (text[0] != '\0' && text[1] != '\0') {
        int high = digit(text[0]), low = digit(text[1]);
        if (high < 0 || low < 0 || used == size)
            return -1;
        out[used++] = (unsigned char)(high * 16 + low);
        text += 2;
    }
    return (int)used;
}
