"""The encoder beside ONNX Runtime and the plain Burn module on the same weights and shapes: tokens a second.

    pip install numpy onnx onnxruntime
    cargo bench --no-run --bench encoder        # prints the path of the program
    python benches/peers/encoder.py --bench target/release/deps/encoder-... --model all-MiniLM-L6-v2

The ONNX graph is built from the model's safetensors with the fused operators that ONNX Runtime's own transformer
optimiser ends with (Attention, SkipLayerNormalization, BiasGelu); int8 is `quantize_dynamic` of it. All five
(Burn only in f32, on flex) are measured by turns, round by round, and the medians are compared. `--check` compares the
embeddings instead.
"""

import argparse
import hashlib
import json
import pathlib
import statistics
import struct
import subprocess
import tempfile
import time

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

SHAPES = [(1, 16), (1, 64), (1, 256), (8, 64), (16, 128), (32, 32)]


def read_weights(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    types = {"F32": numpy.float32, "F16": numpy.float16, "I64": numpy.int64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = numpy.frombuffer(data[8 + size + begin : 8 + size + end], types[entry["dtype"]])
            tensors[name.removeprefix("bert.")] = values.reshape(entry["shape"])
    return tensors


def build_graph(folder, path):
    config = json.loads((folder / "config.json").read_text())
    weights = read_weights(folder / "model.safetensors")
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def tensor(name):
        return constant(name, weights[name].astype(numpy.float32))

    def node(kind, inputs, output, domain="com.microsoft", **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def matmul(value, name, output):
        weight = constant(name, weights[name].astype(numpy.float32).T)
        return node("MatMul", [value, weight], output, domain="")

    parts = ["word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight"]
    inputs = ["input_ids", "segment_ids"] + [tensor(f"embeddings.{part}") for part in parts]
    inputs += [tensor("embeddings.LayerNorm.weight"), tensor("embeddings.LayerNorm.bias")]
    nodes.append(
        helper.make_node(
            "EmbedLayerNormalization", inputs, ["embedded", "unused"], domain="com.microsoft", epsilon=epsilon
        )
    )
    state = "embedded"
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        own = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = constant(f"{at}.qkv", numpy.concatenate([weights[f"{name}.weight"].T for name in own], axis=1))
        bias = constant(f"{at}.qkv_bias", numpy.concatenate([weights[f"{name}.bias"] for name in own]))
        mixed = node("Attention", [state, weight, bias, "attention_mask"], f"{at}.mixed", num_heads=heads)
        added = matmul(mixed, f"{at}.attention.output.dense.weight", f"{at}.added")
        name = f"{at}.attention.output"
        norm = [tensor(f"{name}.LayerNorm.weight"), tensor(f"{name}.LayerNorm.bias"), tensor(f"{name}.dense.bias")]
        state = node("SkipLayerNormalization", [added, state, *norm], f"{at}.middle", epsilon=epsilon)
        wide = matmul(state, f"{at}.intermediate.dense.weight", f"{at}.wide")
        active = node("BiasGelu", [wide, tensor(f"{at}.intermediate.dense.bias")], f"{at}.active")
        narrow = matmul(active, f"{at}.output.dense.weight", f"{at}.narrow")
        name = f"{at}.output"
        norm = [tensor(f"{name}.LayerNorm.weight"), tensor(f"{name}.LayerNorm.bias"), tensor(f"{name}.dense.bias")]
        state = node("SkipLayerNormalization", [narrow, state, *norm], f"{at}.state", epsilon=epsilon)
    node("ReduceMean", [state], "pooled", domain="", axes=[1], keepdims=0)
    feeds = ["input_ids", "segment_ids", "attention_mask"]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "length"]) for name in feeds],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", config["hidden_size"]])],
        constants,
    )
    versions = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)


class Peer:
    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(self, tokens):
        feeds = {"input_ids": tokens, "segment_ids": tokens * 0, "attention_mask": tokens * 0 + 1}
        return self.session.run(None, feeds)[0]

    def tokens_per_second(self, batch, length, seconds):
        rows, columns = numpy.ogrid[:batch, :length]
        tokens = (1000 + (rows * 7919 + columns * 104729) % 28000).astype(numpy.int32)
        self.embed(tokens)
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            self.embed(tokens)
            rounds += 1
        return rounds * batch * length / (time.perf_counter() - start)


class Encoder:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tokens_per_second(self, precision, threads, batch, length, seconds):
        self.process.stdin.write(f"{precision} {threads} {batch} {length} {seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def measure(arguments, graphs):
    encoder = Encoder([arguments.bench, arguments.model])
    for threads in arguments.threads:
        peers = {precision: Peer(path, threads) for precision, path in graphs.items()}
        print(f"\n| tokens/s, {threads} threads | " + " | ".join(f"{b}×{n}" for b, n in SHAPES) + " |")
        print("|---" * (len(SHAPES) + 1) + "|")
        results = {}
        for batch, length in SHAPES:
            for _ in range(arguments.rounds):
                for precision, peer in peers.items():
                    # Threads of ONNX Runtime spin for a while after a run and must not take time from what follows.
                    time.sleep(0.02)
                    speed = peer.tokens_per_second(batch, length, arguments.seconds)
                    results.setdefault((f"ONNX Runtime {precision}", batch, length), []).append(speed)
                    time.sleep(0.02)
                    speed = encoder.tokens_per_second(precision, threads, batch, length, arguments.seconds)
                    results.setdefault((f"triaged {precision}", batch, length), []).append(speed)
                speed = encoder.tokens_per_second("burn", threads, batch, length, arguments.seconds)
                results.setdefault(("Burn f32", batch, length), []).append(speed)
        median = {key: statistics.median(speeds) for key, speeds in results.items()}
        for precision in peers:
            for who in ("ONNX Runtime", "triaged"):
                cells = [f"{median[f'{who} {precision}', batch, length]:,.0f}" for batch, length in SHAPES]
                print(f"| {who} {precision} | " + " | ".join(cells) + " |")
            ratios = [
                median[f"triaged {precision}", batch, length] / median[f"ONNX Runtime {precision}", batch, length]
                for batch, length in SHAPES
            ]
            print(f"| ratio {precision} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)
        burn = [median["Burn f32", batch, length] for batch, length in SHAPES]
        print("| Burn f32, plain module | " + " | ".join(f"{speed:,.0f}" for speed in burn) + " |")
        ratios = [median["triaged f32", *shape] / speed for shape, speed in zip(SHAPES, burn)]
        print("| ratio f32 to Burn | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


def check(arguments, graphs):
    """Embeddings of texts by all four; the tokens are those of the Python tokenizer where there is one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(arguments.model) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    texts = [
        "Multiple failed logins for admin from 10.1.2.3",
        "Please reset my password; my account is locked.",
        "Die Anmeldung schlägt fehl; 不明なエラー. Ångström",
        "error " * 400,
        "",
    ]
    command = [arguments.bench, arguments.model, "--embed"]
    output = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=True).stdout
    rows = numpy.array([[float(value) for value in line.split()] for line in output.splitlines()])
    ours = dict(zip(("f32", "int8"), numpy.split(rows, 2)))
    exact = []
    for text in texts:
        pooled = Peer(graphs["f32"], 1).embed(numpy.array([tokenizer.encode(text).ids], numpy.int32))[0]
        exact.append(pooled / numpy.linalg.norm(pooled))
    for precision, rows in ours.items():
        for row, expected in zip(rows, exact):
            print(precision, "largest difference", abs(row - expected).max(), "cosine", row @ expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="the program that `cargo bench --no-run --bench encoder` makes")
    parser.add_argument("--model", required=True, help="a folder with a BERT model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.model)
    print("onnxruntime", onnxruntime.__version__)
    print("weights", hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    with tempfile.TemporaryDirectory() as scratch:
        graphs = {precision: f"{scratch}/{precision}.onnx" for precision in ("f32", "int8")}
        build_graph(folder, graphs["f32"])
        quantize_dynamic(graphs["f32"], graphs["int8"], weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": TensorProto.FLOAT})
        (check if arguments.check else measure)(arguments, graphs)


if __name__ == "__main__":
    main()
