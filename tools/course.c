/* course.c: the numbers and pictures of docs/course, computed by the code that the chapters explain.

     build/course TOPIC          prints the numbers of a chapter: one of the names in the table below
     build/course TOPIC FILE     draws them into an SVG file; `make course` draws all pictures of docs/course again

   Each topic is a pair of functions, TOPIC_numbers and TOPIC_picture, in the headers below; some have no picture. No file
   is needed but docs/study_runs.csv, and a topic takes about a second. The program is compiled without -march=native and
   without fused multiply-add, so that every machine gets the same numbers. */
#include "course_attention.h"
#include "course_machine.h"
#include "course_model.h"
#include "course_study.h"

static const struct {
    const char *name;
    void (*numbers)(void), (*picture)(void);
} topics[] = {{"map", map_numbers, map_picture},
              {"tokens", tokens_numbers, tokens_picture},
              {"positions", positions_numbers, positions_picture},
              {"norm", norm_numbers, norm_picture},
              {"attention", attention_numbers, attention_picture},
              {"row", row_numbers, NULL},
              {"laser", laser_numbers, laser_picture},
              {"laser-row", laser_row_numbers, NULL},
              {"mlp", mlp_numbers, mlp_picture},
              {"loss", loss_numbers, loss_picture},
              {"backward", backward_numbers, backward_picture},
              {"stream", stream_numbers, stream_picture},
              {"optimizer", optimizer_numbers, optimizer_picture},
              {"numbers", numbers_numbers, numbers_picture},
              {"speed", speed_numbers, speed_picture},
              {"gpu", gpu_numbers, gpu_picture},
              {"ranks", ranks_numbers, ranks_picture},
              {"experiment", experiment_numbers, experiment_picture},
              {"scaling", scaling_numbers, scaling_picture}};
enum { TOPICS = sizeof topics / sizeof *topics };

int main(int argc, char **argv) {
    int topic = 0;
    while (topic < TOPICS && (argc < 2 || strcmp(argv[1], topics[topic].name) != 0)) topic++;
    if (topic == TOPICS || argc > 3) {
        fprintf(stderr, "error: expected build/course TOPIC [FILE.svg], with one of these topics:");
        for (int i = 0; i < TOPICS; i++) fprintf(stderr, " %s", topics[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    if (argc == 3 && !topics[topic].picture) fail(2, "this topic has numbers and no picture: ", argv[1]);
    if (argc == 3 && !(svg = fopen(argv[2], "w"))) fail(1, "cannot write ", argv[2]);
    if (svg) {
        topics[topic].picture();
        fprintf(svg, "</svg>\n");
        if (fclose(svg) != 0) fail(1, "cannot write ", argv[2]);
    } else {
        topics[topic].numbers();
    }
    free(data), free(course_tokens);
    return 0;
}
