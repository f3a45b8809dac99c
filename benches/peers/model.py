"""The fast model beside scikit-learn and fastText on the same rows: accuracy, training time, time a record.

    pip install scikit-learn fasttext-wheel
    cargo build --release
    python benches/peers/model.py --triaged target/release/triaged --kind ticket --data it_tickets/train.jsonl

All are trained on the same four fifths and tried on the last fifth. `triaged` chooses its settings in that time; the
others run with fixed usual ones: TF-IDF of word 1-2-grams with logistic regression, and fastText supervised with word
2-grams. The time a record of scikit-learn is taken in a batch of 256, that of fastText record by record, that of
`triaged` over the whole file including reading it and starting the program.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import tempfile
import time

TEXT = ["content", "description", "body", "log_message", "message", "text"]
LABEL = ["assigned_queue", "target_label", "label", "category", "queue", "intent"]


def read(path):
    rows = [json.loads(line) for line in open(path, encoding="utf-8") if line.strip()]
    text_column = next(name for name in TEXT if name in rows[0])
    label_column = next(name for name in LABEL if name in rows[0])
    texts = ["\n".join(filter(None, [row.get("title"), row[text_column]])) for row in rows]
    return rows, texts, [row[label_column] for row in rows]


def split(count):
    """Every fifth row by hash of its number: the same on every machine."""
    order = sorted(range(count), key=lambda row: hashlib.sha256(str(row).encode()).digest())
    return order[count // 5 :], order[: count // 5]


def run_triaged(binary, kind, rows, train, test):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, part in (("train", train), ("test", test)):
            with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as out:
                out.writelines(json.dumps(rows[row]) + "\n" for row in part)
        started = time.perf_counter()
        command = [binary, "train", "--kind", kind, "--data", folder / "train.jsonl", "--out", folder / "model"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        trained = time.perf_counter()
        command = [binary, "evaluate", "--model", folder / "model", "--data", folder / "test.jsonl", "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        done = time.perf_counter()
        size = sum(file.stat().st_size for file in (folder / "model").iterdir())
    return report["accuracy"], trained - started, (done - trained) / len(test), size


def run_scikit_learn(texts, labels, train, test):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000)
    )
    started = time.perf_counter()
    model.fit([texts[row] for row in train], [labels[row] for row in train])
    trained = time.perf_counter()
    found = []
    for begin in range(0, len(test), 256):
        found.extend(model.predict([texts[row] for row in test[begin : begin + 256]]))
    done = time.perf_counter()
    right = sum(label == labels[row] for label, row in zip(found, test))
    return right / len(test), trained - started, (done - trained) / len(test), None


def run_fasttext(texts, labels, train, test):
    import fasttext

    flat = [" ".join(text.lower().split()) for text in texts]
    names = {label: f"__label__{number}" for number, label in enumerate(sorted(set(labels)))}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(f"{names[labels[row]]} {flat[row]}\n" for row in train)
        file.flush()
        started = time.perf_counter()
        model = fasttext.train_supervised(
            file.name, lr=0.5, epoch=50, wordNgrams=2, minn=2, maxn=5, dim=50, thread=2, seed=42, verbose=0
        )
        trained = time.perf_counter()
    # The package's own `predict` does not work with NumPy 2; what it wraps does.
    found = [model.f.predict(flat[row] + "\n", 1, 0.0, "strict")[0][1] for row in test]
    done = time.perf_counter()
    right = sum(label == names[labels[row]] for label, row in zip(found, test))
    return right / len(test), trained - started, (done - trained) / len(test), None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--triaged", required=True)
    arguments.add_argument("--kind", choices=["ticket", "log"], required=True)
    arguments.add_argument("--data", required=True)
    arguments = arguments.parse_args()
    rows, texts, labels = read(arguments.data)
    train, test = split(len(rows))
    results = {
        "triaged": run_triaged(arguments.triaged, arguments.kind, rows, train, test),
        "scikit-learn": run_scikit_learn(texts, labels, train, test),
        "fastText": run_fasttext(texts, labels, train, test),
    }
    own = results["triaged"]
    print(f"{len(train)} rows to train on, {len(test)} to predict; package {own[3] / 1e6:.2f} MB")
    print(f"{'':14}accuracy  training    a record   training and record as multiples of triaged's")
    for name, (accuracy, training, record, _) in results.items():
        ratios = f"{training / own[1]:.2f} {record / own[2]:.1f}"
        print(f"{name:14}{accuracy:8.4f}  {training:6.1f} s  {record * 1e6:7.1f} µs   {ratios}")


if __name__ == "__main__":
    main()
