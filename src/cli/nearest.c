/* cli/nearest.c: which known word a mistyped one is most like. */
#include "cli.h"
#include <string.h>

#define WORD_MAX 63

/* Edits (insert, delete, replace, swap of neighbours) from a to b; words longer than WORD_MAX are far. */
static int distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    int rows[3][WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX)
        return WORD_MAX;
    for (int j = 0; j <= m; j++)
        rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            now[j] = swapped && above2[j - 2] + 1 < best ? above2[j - 2] + 1 : best;
        }
    }
    return rows[n % 3][m];
}

const char *cli_nearest(const char *word, const char *(*next)(const void *arg, int index), const void *arg)
{
    const char *best = NULL, *candidate;
    int limit = 1 + (int)strlen(word) / 3;
    for (int i = 0; (candidate = next(arg, i)) != NULL; i++) {
        int edits = distance(word, candidate);
        if (edits <= limit) {
            limit = edits - 1;
            best = candidate;
        }
    }
    return best;
}
