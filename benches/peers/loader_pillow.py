"""What `lara bench loader` measures, with Pillow: the same stages in timm's order, an image at a time in one process.

    pip install "pillow<=12" numpy
    python benches/peers/loader_pillow.py FOLDER --images 1024

FOLDER holds train/CLASS/*.jpg, as `lara bench loader --data FOLDER` reads it. Times are of the processor, not of the clock
on the wall, so that what others do on the machine is not counted.
"""

import argparse
import math
import pathlib
import random
import time

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

SIDE = 224
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
FILL = (124, 116, 104)


def crop_box(width, height):
    """A random part: 8 to 100 % of the area, sides 3:4 to 4:3."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def affine(picture, *matrix):
    return picture.transform(picture.size, Image.AFFINE, matrix, resample=Image.BICUBIC, fillcolor=FILL)


def solarize_add(picture, add):
    table = [min(255, v + add) if v < 128 else v for v in range(256)]
    return picture.point(table * 3)


def rand_augment(picture):
    """rand-m9-mstd0.5-inc1: two of fifteen operations, each with probability 1/2."""
    for op in random.choices(range(15), k=2):
        if random.random() > 0.5:
            continue
        level = min(10.0, max(0.0, random.gauss(9, 0.5)))
        sign = random.choice((-1, 1))
        factor = max(0.1, 1 + sign * level / 10 * 0.9)
        width, height = picture.size
        if op == 0:
            picture = ImageOps.autocontrast(picture)
        elif op == 1:
            picture = ImageOps.equalize(picture)
        elif op == 2:
            picture = ImageOps.invert(picture)
        elif op == 3:
            picture = picture.rotate(sign * level * 3, resample=Image.BICUBIC, fillcolor=FILL)
        elif op == 4:
            bits = 4 - int(level / 10 * 4)
            picture = ImageOps.posterize(picture, bits) if bits else picture.point([0] * 768)
        elif op == 5:
            picture = ImageOps.solarize(picture, 256 - min(256, int(level / 10 * 256)))
        elif op == 6:
            picture = solarize_add(picture, min(128, int(level / 10 * 110)))
        elif op < 11:
            kinds = (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)
            picture = kinds[op - 7](picture).enhance(factor)
        elif op == 11:
            picture = affine(picture, 1, sign * level * 0.03, 0, 0, 1, 0)
        elif op == 12:
            picture = affine(picture, 1, 0, 0, sign * level * 0.03, 1, 0)
        elif op == 13:
            picture = affine(picture, 1, 0, sign * level * 0.045 * width, 0, 1, 0)
        else:
            picture = affine(picture, 1, 0, 0, 0, 1, sign * level * 0.045 * height)
    return picture


def normalise(picture):
    """[3, H, W], flipped or not."""
    if random.random() < 0.5:
        picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
    values = np.asarray(picture, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(((values - MEAN) / STD).transpose(2, 0, 1))


def erase(image):
    if random.random() >= 0.25:
        return
    for _ in range(10):
        area = random.uniform(0.02, 1 / 3) * SIDE * SIDE
        aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < SIDE and h < SIDE:
            top, left = random.randint(0, SIDE - h), random.randint(0, SIDE - w)
            image[:, top : top + h, left : left + w] = np.random.standard_normal((3, h, w))
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=1024)
    options = parser.parse_args()
    files = sorted(options.folder.glob("train/*/*.jp*g"))
    if not files:
        parser.error(f"{options.folder}/train/CLASS holds no JPEG files")
    random.seed(0)
    stages = dict.fromkeys(["decode", "crop and resize", "RandAugment", "flip and normalise", "erase"], 0.0)
    clock = time.process_time()

    def tick(stage):
        nonlocal clock
        now = time.process_time()
        stages[stage] += now - clock
        clock = now

    for i in range(options.images):
        with Image.open(files[i % len(files)]) as file:
            picture = file.convert("RGB")
        tick("decode")
        picture = picture.crop(crop_box(*picture.size)).resize((SIDE, SIDE), Image.BICUBIC)
        tick("crop and resize")
        picture = rand_augment(picture)
        tick("RandAugment")
        image = normalise(picture)
        tick("flip and normalise")
        erase(image)
        tick("erase")
    total = sum(stages.values()) / options.images * 1e3
    print(f"Pillow {PIL.__version__}, numpy {np.__version__}: {total:.2f} ms of processor time an image,")
    print(f"{2e3 / total:.0f} images/s on two processors that do nothing else")
    for stage, seconds in stages.items():
        print(f"  {stage:<20} {seconds / options.images * 1e3:>6.3f} ms")


if __name__ == "__main__":
    main()
