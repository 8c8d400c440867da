/* The convolution of an image and the 2×2 pooling behind it, there and back, in float32.

   Compiled for the weights of one layer: KERNELS, CHANNELS, ROWS, COLUMNS. Channels lie last. A
   maximum sees a patch of the image, one row and one column larger than a kernel; its gradient goes
   to that patch by the weights as they lie in it for the place, 0 to 3, where the maximum stood. So
   none of the convolution's maps is written or read as a whole, and of their gradients, three
   quarters zeros, a quarter is computed. What is infinite or NaN in a gradient reaches the whole
   patch. */

#include <stdint.h>
#include <string.h>

#if defined __AVX512F__
#define LANES 16
#elif defined __AVX__
#define LANES 8
#else
#define LANES 4
#endif
#define VECTORS(n) (((n) + LANES - 1) / LANES)

enum {
    PLACES = 4,
    ROW = COLUMNS * CHANNELS,                  /* taps in a row of a kernel */
    TAPS = ROWS * ROW,
    WIDE = (ROW + CHANNELS + 7) / 8 * 8,       /* a row of a patch, and what is beyond it */
    PATCH = VECTORS((ROWS + 1) * WIDE),
    OUTPUTS = VECTORS(KERNELS),
    BLOCK = OUTPUTS % 2 ? 1 : 2,               /* outputs that are summed at once, for each place */
};

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t numbers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int8_t bytes __attribute__((vector_size(LANES)));

struct sizes {
    int64_t images, height, width, top, left, parts, threads, room;
};

/* An image within its margin of zeros, a frame, and how to go through it: its rows end with as much
   as a patch at their end may be wider than they are, and the height and width of its maxima. */
static int64_t stride(const struct sizes *of) { return (of->width + 2 * of->left) * CHANNELS + 8; }
static int64_t high(const struct sizes *of) { return (of->height + 2 * of->top - ROWS + 1) / 2; }
static int64_t wide(const struct sizes *of) { return (of->width + 2 * of->left - COLUMNS + 1) / 2; }
static int64_t margin(const struct sizes *of) { return of->top * stride(of) + of->left * CHANNELS; }

int64_t room_of_frame(const struct sizes *of) { return (of->height + 2 * of->top) * stride(of); }

/* Of a kernel's weights as they lie in a patch, for each place. */
int64_t room_of_patches(void) { return PLACES * PATCH * LANES; }

/* The first image of a part; each part is one thread's. */
static int64_t first(const struct sizes *of, int64_t part) {
    return of->images * part / of->parts;
}

static void framed(const float *x, float *frame, const struct sizes *of) {
    const int64_t line = of->width * CHANNELS;
    for (int64_t row = 0; row < of->height; row++)
        memcpy(frame + margin(of) + row * stride(of), x + row * line, line * sizeof *x);
}

static vector chosen(numbers one, vector yes, vector no) {
    return (vector)((one & (numbers)yes) | (~one & (numbers)no));
}

/* The largest, and where it stood, as PyTorch has them: the first of equals, or the last NaN. */
static vector largest(const vector of[PLACES], numbers *where) {
    vector most = of[0];
    *where = (numbers){0};
    for (int place = 1; place < PLACES; place++) {
        const numbers larger = (of[place] > most) | (of[place] != of[place]);
        most = chosen(larger, of[place], most);
        *where = (larger & place) | (~larger & *where);
    }
    return most;
}

static void windowed(const float *corner, int64_t stride, const vector taps[TAPS][OUTPUTS],
                     const vector bias[OUTPUTS], float *y, int8_t *where) {
    for (int block = 0; block < OUTPUTS; block += BLOCK) {
        vector total[BLOCK][PLACES];
        for (int one = 0; one < BLOCK; one++)
            for (int place = 0; place < PLACES; place++) total[one][place] = bias[block + one];
        for (int row = 0; row < ROWS; row++)
            for (int tap = 0; tap < ROW; tap++) {
                const float *pixel = corner + row * stride + tap;
                for (int one = 0; one < BLOCK; one++) {
                    const vector by = taps[row * ROW + tap][block + one];
                    total[one][0] += pixel[0] * by;
                    total[one][1] += pixel[CHANNELS] * by;
                    total[one][2] += pixel[stride] * by;
                    total[one][3] += pixel[stride + CHANNELS] * by;
                }
            }
        for (int one = 0; one < BLOCK; one++) {
            const int at = (block + one) * LANES;
            const int count = KERNELS - at < LANES ? KERNELS - at : LANES;
            numbers stood;
            const vector most = largest(total[one], &stood);
            memcpy(y + at, &most, count * sizeof *y);
            if (where) {
                const bytes noted = __builtin_convertvector(stood, bytes);
                memcpy(where + at, &noted, count);
            }
        }
    }
}

/* y, (images, high, wide, KERNELS), and, unless it is no place, where each maximum stood.

   x is (images, height, width, CHANNELS), weight (KERNELS, CHANNELS, ROWS, COLUMNS), bias (KERNELS)
   or no place, frames a frame of zeros for each part. */
void maxima(const float *x, const float *weight, const float *bias, float *y, int8_t *where,
            float *frames, const struct sizes *of) {
    vector taps[TAPS][OUTPUTS], offset[OUTPUTS];
    memset(taps, 0, sizeof taps);
    memset(offset, 0, sizeof offset);
    if (bias) memcpy(offset, bias, KERNELS * sizeof *bias);
    for (int k = 0; k < KERNELS; k++)
        for (int c = 0; c < CHANNELS; c++)
            for (int tap = 0; tap < ROWS * COLUMNS; tap++)
                taps[tap * CHANNELS + c][k / LANES][k % LANES] = *weight++;
    const int64_t step = stride(of), lines = high(of), line = wide(of);
#pragma omp parallel for num_threads(of->threads) schedule(static, 1)
    for (int64_t part = 0; part < of->parts; part++) {
        float *frame = frames + part * of->room;
        for (int64_t n = first(of, part); n < first(of, part + 1); n++) {
            framed(x + n * of->height * of->width * CHANNELS, frame, of);
            for (int64_t row = 0; row < lines; row++)
                for (int64_t column = 0; column < line; column++) {
                    const int64_t at = ((n * lines + row) * line + column) * KERNELS;
                    windowed(frame + 2 * (row * step + column * CHANNELS), step, taps, offset,
                             y + at, where ? where + at : where);
                }
        }
    }
}

/* The kernels that have a gradient: behind a ReLU half of them or fewer. */
static int living(const float *gradient, int kernels[KERNELS]) {
    int count = 0;
    for (int k = 0; k < KERNELS; k++) {
        kernels[count] = k;
        count += gradient[k] != 0;
    }
    return count;
}

/* The gradient of the images, laid out like x, of that of the maxima; patches is of KERNELS times
   room_of_patches zeros. */
void to_image(const float *gradient, const int8_t *where, const float *weight, float *x,
              float *patches, float *frames, const struct sizes *of) {
    vector(*placed)[PLACES][PATCH] = (void *)patches;
    for (int k = 0; k < KERNELS; k++)
        for (int c = 0; c < CHANNELS; c++)
            for (int row = 0; row < ROWS; row++)
                for (int column = 0; column < COLUMNS; column++, weight++)
                    for (int place = 0; place < PLACES; place++)
                        ((float *)placed[k][place])[(row + place / 2) * WIDE +
                                                    (column + place % 2) * CHANNELS + c] = *weight;
    const int64_t step = stride(of), lines = high(of), line = wide(of);
#pragma omp parallel for num_threads(of->threads) schedule(static, 1)
    for (int64_t part = 0; part < of->parts; part++) {
        float *frame = frames + part * of->room;
        for (int64_t n = first(of, part); n < first(of, part + 1); n++) {
            memset(frame, 0, of->room * sizeof *frame);
            for (int64_t window = 0; window < lines * line; window++) {
                const int64_t at = (n * lines * line + window) * KERNELS;
                int kernels[KERNELS];
                const int count = living(gradient + at, kernels);
                vector even[PATCH] = {{0}}, odd[PATCH] = {{0}};  /* two sums in turn wait less */
                for (int one = 0; one < count; one += 2) {
                    const int k = kernels[one], l = one + 1 < count ? kernels[one + 1] : k;
                    const float other = one + 1 < count ? gradient[at + l] : 0;
                    for (int v = 0; v < PATCH; v++) {
                        even[v] += gradient[at + k] * placed[k][where[at + k]][v];
                        odd[v] += other * placed[l][where[at + l]][v];
                    }
                }
                float patch[PATCH * LANES];
                for (int v = 0; v < PATCH; v++)
                    *(vector *)(patch + v * LANES) = even[v] + odd[v];
                float *corner = frame + 2 * (window / line * step + window % line * CHANNELS);
                for (int row = 0; row <= ROWS; row++)
                    for (int tap = 0; tap < WIDE; tap++)
                        corner[row * step + tap] += patch[row * WIDE + tap];
            }
            const int64_t across = of->width * CHANNELS;
            for (int64_t row = 0; row < of->height; row++)
                memcpy(x + (n * of->height + row) * across, frame + margin(of) + row * step,
                       across * sizeof *x);
        }
    }
}

/* The gradients of weight and bias; sums is of parts times KERNELS times room_of_patches zeros,
   by_bias of (parts, KERNELS) zeros, of which the first row is the result. */
void to_weight(const float *gradient, const int8_t *where, const float *x, float *by_weight,
               double *by_bias, float *sums, float *frames, const struct sizes *of) {
    static const int64_t size = PATCH * LANES;
    const int64_t step = stride(of), lines = high(of), line = wide(of);
#pragma omp parallel for num_threads(of->threads) schedule(static, 1)
    for (int64_t part = 0; part < of->parts; part++) {
        float *frame = frames + part * of->room;
        double *bias = by_bias + part * KERNELS;
        float *own = sums + part * KERNELS * PLACES * size;
        for (int64_t n = first(of, part); n < first(of, part + 1); n++) {
            framed(x + n * of->height * of->width * CHANNELS, frame, of);
            for (int64_t window = 0; window < lines * line; window++) {
                const int64_t at = (n * lines * line + window) * KERNELS;
                const float *corner =
                    frame + 2 * (window / line * step + window % line * CHANNELS);
                vector patch[PATCH] = {{0}};
                for (int row = 0; row <= ROWS; row++)
                    memcpy((float *)patch + row * WIDE, corner + row * step, WIDE * sizeof *corner);
                int kernels[KERNELS];
                const int count = living(gradient + at, kernels);
                for (int one = 0; one < count; one++) {
                    const int k = kernels[one];
                    float *sum = own + (k * PLACES + where[at + k]) * size;
                    for (int v = 0; v < PATCH; v++)
                        *(vector *)(sum + v * LANES) +=
                            gradient[at + k] * patch[v];
                    bias[k] += gradient[at + k];
                }
            }
        }
    }
    for (int64_t part = 1; part < of->parts; part++) {
        for (int64_t at = 0; at < KERNELS * PLACES * size; at++)
            sums[at] += sums[part * KERNELS * PLACES * size + at];
        for (int k = 0; k < KERNELS; k++) by_bias[k] += by_bias[part * KERNELS + k];
    }
    for (int k = 0; k < KERNELS; k++)
        for (int c = 0; c < CHANNELS; c++)
            for (int row = 0; row < ROWS; row++)
                for (int column = 0; column < COLUMNS; column++) {
                    float total = 0;
                    for (int place = 0; place < PLACES; place++)
                        total += sums[(k * PLACES + place) * size + (row + place / 2) * WIDE +
                                      (column + place % 2) * CHANNELS + c];
                    *by_weight++ = total;
                }
}
