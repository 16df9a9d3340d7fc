import JSON
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A shipped model without its weights; with other bytes in their place, if wanted.
struct HollowModel {
  private let folder: TemporaryFolder
  var path: String { folder.path }

  init(_ name: String, weights: [UInt8]? = nil) throws {
    folder = try TemporaryFolder()
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
      symlink("\(Repository.model(name))/\(file)", folder.file(file))
    }
    if let weights { try write("model.safetensors", weights) }
  }

  func write(_ name: String, _ bytes: [UInt8]) throws { try folder.write(name, bytes) }
}

/// `--dry-run` decides all that a run would, and needs no weights for it.
@Suite struct DryRunTests {
  static let commands = [
    ["generate", "Mia has 3 coins."], ["chat"], ["bench", "engine"], ["bench", "decode", "-d", "100"],
    ["bench", "prefill"], ["bench", "accuracy", "--text", AccuracyTests.text],
  ]

  /// The weights aren't there, or aren't weights: they can't have been read.
  @Test(arguments: commands) func needsNoWeights(command: [String]) throws {
    for model in [
      try HollowModel("tiny-qwen3"), try HollowModel("tiny-deepseek-v3", weights: Array("no weights at all".utf8)),
    ] {
      let run = try Command.run(command + ["--dry-run", "--model", model.path])
      #expect(run.status == 0, "\(run.errors)")
      for word in ["architecture", "bytes_per_token", "layer_4_", "prefill_access", "threads", "no scale: 1"] {
        #expect(run.output.contains(word), "\(word)")
      }
      #expect(run.output.contains("warning: the weights can't be loaded as they are"))
      let real = try Command.run(command + ["--model", model.path])
      #expect(real.status == 65 && real.errors.contains("model.safetensors"), "\(real.errors)")
    }
  }

  /// A benchmark of drafts needs a model with a layer for them, and its weights as little as the others.
  @Test func benchSpeculationNeedsNoWeights() throws {
    let model = try HollowModel("tiny-deepseek-v3")
    let run = try Command.run(["bench", "speculation", "--dry-run", "--model", model.path])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.output.split(separator: "\nmodel\n").count == 6 && run.output.contains("draft_kv_cache"))
    let dense = try HollowModel("tiny-qwen3")
    let refused = try Command.run(["bench", "speculation", "--dry-run", "--model", dense.path])
    #expect(
      refused.status == 65 && refused.errors.contains("expected DeepSeek-V3 with a layer for it"), "\(refused.errors)")
  }

  @Test(arguments: [
    ("tiny-qwen3", ["--kv-cache-dtype-v", "mxfp4", "--page-size", "32"]),
    ("tiny-deepseek-v3", ["--kv-cache-dtype", "fp8", "--speculative-algorithm", "mtp"]),
  ])
  func saysWhatTheRunDoes(model: String, options: [String]) throws {
    let arguments = ["generate", "--json", "--model", Repository.model(model), "Mia has 3 coins."] + options
    let plan = try JSONValue.parse(bytes: Array(try Command.run(arguments + ["--dry-run"]).output.utf8))
    let run = try JSONValue.parse(bytes: Array(try Command.run(arguments).output.utf8))
    func planned(_ section: String, _ name: String) -> JSONValue? { plan[section]?[name]?["value"] }
    let sides = model == "tiny-qwen3" ? ("dtype_k", "dtype_v") : ("dtype_latent", "dtype_rope")
    #expect(planned("kv_cache", sides.0) == run["kv_cache"]?["dtype_k"])
    #expect(planned("kv_cache", sides.1) == run["kv_cache"]?["dtype_v"])
    #expect(planned("kv_cache", "bytes_per_token") == run["kv_cache"]?["bytes_per_token"])
    #expect(planned("attention", "decode") == run["attention_backend"]?["name"])
    #expect(planned("request", "prompt_tokens") == run["prompt_tokens"])
    for (section, decisions) in plan.objectValue ?? JSONObject() where section != "warnings" {
      for (name, decision) in decisions.objectValue ?? JSONObject() {
        #expect(decision["reason"]?.stringValue?.isEmpty == false, "\(section) \(name)")
      }
    }
  }

  /// Whatever the run refuses, the dry run refuses in the same words.
  @Test(arguments: [
    ["--kv-cache-dtype", "q4_0"], ["--attention-backend", "fa3"], ["--attention-backend", "cuda"],
    ["--page-size", "40"], ["--speculative-algorithm", "mtp"], ["--kv-cache-scales", "/no/such/file"],
    ["--kv-scale-convention", "amax/7"], ["--kv-cache-memory", "100B"], ["--temperature", "-1"],
    ["--swap-space", "1B"], ["--repetition-penalty", "1e-38"],
    ["--max-tokens", "100000"], ["--max-total-tokens", "64", "--max-tokens", "65"],
    ["--prefill-attention-backend", "cpu", "--decode-attention-backend", "cuda"],
  ])
  func refusesWhatTheRunRefuses(options: [String]) throws {
    let real = try Command.run(["generate", "Mia has 3 coins."] + options)
    let dry = try Command.run(["generate", "--dry-run", "Mia has 3 coins."] + options)
    #expect(real.status != 0 && dry.status == real.status)
    #expect(dry.errors == real.errors)
  }

  /// Of a shard that is there, scales are found; the shard of weights may be missing.
  @Test func findsScalesWithoutTheWeights() throws {
    let model = try HollowModel("tiny-qwen3")
    let key = "model.layers.0.self_attn.k_proj.k_scale"
    let value = "model.layers.0.self_attn.v_proj.v_scale"
    let header = """
      {"\(key)":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"\(value)":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}
      """
    let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) }
    let scales = [Float(0.25), 0.5].flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian) { Array($0) } }
    try model.write("scales.safetensors", length + Array(header.utf8) + scales)
    try model.write(
      "model.safetensors.index.json",
      Array(
        """
        {"weight_map": {"model.norm.weight": "weights.safetensors", "\(key)": "scales.safetensors",
         "\(value)": "scales.safetensors"}}
        """.utf8))
    let run = try Command.run(
      ["generate", "--dry-run", "--model", model.path, "--kv-cache-dtype", "fp8", "--kv-scale-convention", "fp8", "x"])
    #expect(run.status == 0, "\(run.errors)")
    #expect(run.output.contains("found 0.25, used as is") && run.output.contains("found 0.5, used as is"))
    #expect(run.output.contains("weights.safetensors: No such file"))
  }
}

/// Scales that are none, and cache types of other engines: one sentence, before a weight is read.
@Suite struct BadScalesTests {
  @Test(arguments: [
    (#"{"k": 0, "v": 1}"#, "the KV scale layers.0.k of layer 0 is 0.0; expected a positive finite number"),
    (#"{"k": 1, "v": -0.5}"#, "is -0.5; expected a positive finite number"),
    (#"{"k": 1e-320, "v": 1}"#, "is 0.0; expected a positive finite number"),
    (#"{"k": 1e300, "v": 1}"#, "is inf; expected a positive finite number"),
    (#"{"k": NaN, "v": 1}"#, "expected"), (#"{"k": "1", "v": 1}"#, "expected 'layers.0.k' to be a number, found"),
    (#"{"k": [1, 2, 3, 4], "v": 1}"#, "has 4 values; expected one for the whole tensor"),
    (#"{"k": 1}"#, "layer 0 has a KV scale for one side only (layers.0.k); expected one for keys and one for values"),
    (#"{"v": 1}"#, "layer 0 has a KV scale for one side only (layers.0.v)"),
    (#"{"k": 1, "v": 1}, "6": {"k": 1, "v": 1}"#, "names layer 6, but the model has layers 0 to 5"),
  ])
  func aFileOfScales(layer: String, message: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("scales.json", #"{"convention": "amax/448", "layers": {"0": \#(layer)}}"#)
    for recipe in ["nvfp4", "nvfp4_4over6", "fp8_e4m3"] {
      let run = try Command.run(["generate", "--kv-cache-dtype", recipe, "--kv-cache-scales", path, "Mia has 3 coins."])
      #expect(run.status == 64 || run.status == 65)
      #expect(run.errors.contains(message), "\(run.errors)")
      #expect(run.errors.split(separator: "\n").count == 1 && run.output.isEmpty)
    }
  }

  @Test(arguments: [
    ("turboquant", "nvfp4"), ("q4_0", "nvfp4"), ("q4_1", "nvfp4"), ("iq4_nl", "nvfp4"), ("q5_1", "fp8_e4m3"),
    ("q8_0", "fp8_e4m3"), ("int4_per_token_head", "nvfp4"), ("int8_per_token_head", "fp8_e4m3"), ("int8", "fp8_e4m3"),
    ("fp8_e5m2", "fp8_e4m3"), ("fp8_per_token_head", "fp8_e4m3"), ("fp8_inc", "fp8_e4m3"), ("fp8_ds_mla", "fp8_e4m3"),
    ("f16", "bf16"), ("float16", "bf16"), ("fp4", "nvfp4"), ("nvpf4", "nvfp4"), ("mxfp8", "fp8_e4m3"), ("nf4", "nvfp4"),
  ])
  func aRecipeOfAnotherEngine(name: String, nearest: String) throws {
    for flag in ["--kv-cache-dtype", "--kv-cache-dtype-rope"] {
      let run = try Command.run(["generate", "--dry-run", flag, name, "Mia has 3 coins."])
      #expect(run.status == 64 && run.output.isEmpty)
      #expect(run.errors.hasPrefix("error: unknown KV cache dtype '\(name)'; expected one of: f32"), "\(run.errors)")
      #expect(run.errors.hasSuffix("try \(nearest), the nearest to it\n"), "\(run.errors)")
    }
  }
}
