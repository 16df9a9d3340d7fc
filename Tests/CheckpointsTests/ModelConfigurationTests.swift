import Checkpoints
import JSON
import TestSupport
import Testing

@Suite struct ModelConfigurationTests {
  static let llama = #"""
    {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
     "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "num_attention_heads": 32,
     "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": false,
     "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
       "original_max_position_embeddings": 8192, "rope_type": "llama3"},
     "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "torch_dtype": "bfloat16"}
    """#
  static let deepseekR1 = #"""
    {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": 61,
     "num_nextn_predict_layers": 1, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
     "vocab_size": 129280, "max_position_embeddings": 163840, "num_attention_heads": 128, "num_key_value_heads": 128,
     "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
     "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
     "norm_topk_prob": true, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
     "first_k_dense_replace": 3, "moe_layer_freq": 1, "rms_norm_eps": 1e-06, "rope_theta": 10000, "hidden_act": "silu",
     "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
       "weight_block_size": [128, 128]},
     "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
       "original_max_position_embeddings": 4096, "type": "yarn"},
     "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"}
    """#

  /// The Llama configuration with members replaced; a null removes.
  static func altered(_ changes: JSONValue, of base: String = llama) throws -> ModelConfiguration {
    var object = try JSONValue.parse(base).objectValue ?? JSONObject()
    for (key, value) in changes.objectValue ?? JSONObject() { object[key] = value }
    return try ModelConfiguration(json: .object(object))
  }

  @Test func readsLlama() throws {
    let model = try ModelConfiguration(json: JSONValue.parse(Self.llama))
    #expect(model.architecture == .llama)
    #expect(model.headDimension == 128 && model.kvHeadCount == 8 && model.queryHeadCount == 32)
    #expect(model.eosTokenIDs == [128001, 128008, 128009] && model.bosTokenID == 128000)
    #expect(model.rope.theta == 500_000 && model.rope.scaling.name == "llama3" && !model.rope.isInterleaved)
    #expect(!model.qkNorm && !model.attentionBias && model.mla == nil && model.moe == nil)
    #expect(model.dtype == "bfloat16" && model.rmsNormEpsilon == 1e-5)
    #expect(model.softmaxScale == 1 / Float(128).squareRoot())
  }

  @Test func readsDeepSeek() throws {
    let model = try ModelConfiguration(json: JSONValue.parse(Self.deepseekR1))
    let mla = try #require(model.mla)
    let moe = try #require(model.moe)
    #expect(model.headDimension == 192 && model.kvHeadCount == 128 && model.nextnLayerCount == 1)
    #expect(mla.queryLoraRank == 1536 && mla.kvLoraRank == 512 && mla.qkRopeHeadDimension == 64)
    #expect(moe.scoring == .sigmoid && moe.selection == .noAuxiliaryLoss && moe.routedScalingFactor == 2.5)
    #expect(!moe.isSparse(layer: 2) && moe.isSparse(layer: 3) && moe.isSparse(layer: 60))
    #expect(model.rope.isInterleaved && model.rope.attentionFactor == 1)
    // 0.1 ln 40 + 1, squared.
    #expect(abs(model.rope.softmaxScaleFactor - 1.8738542) < 1e-6)
    #expect(abs(Double(model.softmaxScale) - 1.8738542 / 192.0.squareRoot()) < 1e-7)
    #expect(model.quantization?.isBlockFP8 == true && model.quantization?.algorithm == "e4m3")
    let lite = try Self.altered(
      [
        "architectures": ["DeepseekV2ForCausalLM"], "q_lora_rank": nil, "scoring_func": "softmax",
        "topk_method": "greedy", "n_group": 1, "topk_group": 1, "norm_topk_prob": false,
      ], of: Self.deepseekR1)
    #expect(lite.mla?.queryLoraRank == nil && lite.moe?.selection == .greedy && lite.moe?.normalizesTopK == false)
  }

  @Test func readsTheQwens() throws {
    let shipped = try ModelConfiguration(directory: Repository.model("tiny-qwen3"))
    #expect(shipped.qkNorm && shipped.headDimension == 64 && shipped.tieWordEmbeddings && shipped.layerCount == 6)
    // Qwen2 files don't say that queries, keys and values have biases, and carry a window that is switched off.
    let qwen2 = try Self.altered([
      "architectures": ["Qwen2ForCausalLM"], "sliding_window": 4096, "use_sliding_window": false, "rope_scaling": nil,
    ])
    #expect(qwen2.attentionBias && !qwen2.attentionOutputBias && !qwen2.qkNorm)
    let mixture = try Self.altered([
      "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 64, "num_experts": 16, "num_experts_per_tok": 4,
      "moe_intermediate_size": 96, "decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": true,
    ])
    #expect(mixture.qkNorm && mixture.headDimension == 64)
    let sparse = (0..<6).filter { mixture.moe?.isSparse(layer: $0) == true }
    #expect(sparse == [1, 5])
    // transformers' own default, whatever hidden_size says.
    #expect(try Self.altered(["architectures": ["Qwen3ForCausalLM"], "num_attention_heads": 8]).headDimension == 128)
  }

  @Test func defaultsFollowTransformers() throws {
    let model = try Self.altered([
      "num_key_value_heads": nil, "rope_scaling": nil, "rope_theta": nil, "rms_norm_eps": nil, "eos_token_id": nil,
      "architectures": nil,
    ])
    #expect(model.architecture == .llama && model.kvHeadCount == 32 && model.rope == RopeConfiguration(theta: 10_000))
    #expect(model.rmsNormEpsilon == 1e-6 && model.eosTokenIDs.isEmpty)
    let biased = try Self.altered(["attention_bias": true, "mlp_bias": true])
    #expect(biased.attentionBias && biased.attentionOutputBias && biased.mlpBias)
  }

  /// transformers 5 writes one object, earlier versions two members.
  @Test func bothFormsOfRopeAgree() throws {
    let older = try ModelConfiguration(json: JSONValue.parse(Self.llama))
    let newer = try Self.altered([
      "rope_scaling": nil, "rope_theta": nil,
      "rope_parameters": [
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
      ],
    ])
    #expect(older == newer)
    let oldest = try Self.altered([
      "rope_scaling": [
        "type": "llama3", "factor": 8, "high_freq_factor": 4, "low_freq_factor": 1,
        "original_max_position_embeddings": 8192,
      ]
    ])
    #expect(older == oldest)
    #expect(try Self.altered(["rope_scaling": [:]]).rope.scaling == .none)
  }

  @Test(
    arguments: [
      (["architectures": ["MambaForCausalLM"]], "'MambaForCausalLM' is not supported; expected one of: Llama"),
      (["architectures": [], "model_type": "gemma"], "'gemma' is not supported"),
      (["architectures": [], "model_type": nil], "no 'architectures'"),
      (["num_hidden_layers": 0], "'num_hidden_layers' to be an integer from 1"),
      (["num_hidden_layers": -3], "found -3"), (["num_hidden_layers": "32"], "found \"32\""),
      (["num_hidden_layers": 1_000_000_000], "from 1 to 4096"), (["num_hidden_layers": nil], "no 'num_hidden_layers'"),
      (["hidden_size": 4097], "multiple of num_attention_heads"), (["head_dim": 127], "even number"),
      (["vocab_size": 9_223_372_036_854_775_807], "'vocab_size'"), (["num_key_value_heads": 5], "a divisor"),
      (["num_key_value_heads": 0], "'num_key_value_heads'"), (["rms_norm_eps": "x"], "'rms_norm_eps'"),
      (["tie_word_embeddings": 1], "true or false"), (["hidden_act": "gelu"], "activation 'gelu'"),
      (["rope_theta": 0], "'rope_theta'"),
      (["rope_scaling": ["type": "dynamic", "factor": 2]], "rope scaling 'dynamic'"),
      (["rope_scaling": ["rope_type": "llama3"]], "no 'rope_scaling.low_freq_factor'"),
      (["rope_scaling": ["rope_type": "linear", "factor": 0]], "'rope_scaling.factor'"),
      (["rope_scaling": 3], "'rope_scaling' to be an object"),
      (["partial_rotary_factor": 0.5], "partial_rotary_factor"),
      (["eos_token_id": [1, "2"]], "'eos_token_id'"), (["eos_token_id": -1], "'eos_token_id'"),
      (["architectures": ["MistralForCausalLM"], "sliding_window": 4096], "sliding-window attention over 4096"),
      (["architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true, "sliding_window": 4096], "sliding-window"),
      (["layer_types": ["full_attention", "linear_attention"]], "\"linear_attention\""),
      (["quantization_config": ["quant_method": "fp8", "weight_block_size": [128]]], "two integers"),
    ] as [(JSONValue, String)])
  func refuses(changes: JSONValue, expected: String) {
    let error = #expect(throws: CheckpointError.self) { try Self.altered(changes) }
    #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
  }

  @Test func refusesAMixtureThatCannotChoose() throws {
    let changes: [(JSONValue, String)] = [
      (["n_group": 7], "a divisor of the 256"), (["topk_group": 9], "at most n_group"),
      (["num_experts_per_tok": 200], "at most the 128"), (["topk_method": "best"], "topk_method 'best'"),
      (["n_group": 256, "topk_group": 16], "at most half"), (["qk_rope_head_dim": 63], "even number"),
    ]
    for (change, expected) in changes {
      let error = #expect(throws: CheckpointError.self) { try Self.altered(change, of: Self.deepseekR1) }
      #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
    }
  }

  @Test func readsWhatACacheWasCalibratedFor() throws {
    func algorithm(_ section: JSONValue) throws -> QuantizationConfiguration.KVCacheAlgorithm? {
      try Self.altered(["quantization_config": section]).quantization?.kvCache
    }
    #expect(try algorithm(["quant_method": "fp8"]) == nil)
    #expect(try algorithm(["quant_method": "modelopt", "kv_cache_quant_algo": "NVFP4"]) == .nvfp4)
    #expect(try algorithm(["quant_method": "modelopt", "kv_cache_scheme": ["num_bits": 8, "type": "float"]]) == .fp8)
    #expect(try algorithm(["kv_cache_scheme": ["num_bits": 8, "type": "int"]]) == .other("int8"))
    #expect(
      try algorithm([
        "quant_method": "quark", "layer_quant_config": ["*k_proj": ["output_tensors": ["dtype": "fp8_e4m3"]]],
      ]) == .fp8)
    let directory = try TemporaryFolder()
    try directory.write("config.json", Self.llama)
    #expect(try ModelConfiguration(directory: directory.path).quantization == nil)
    try directory.write(
      "hf_quant_config.json",
      #"{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}"#)
    let read = try ModelConfiguration(directory: directory.path).quantization
    #expect(read?.method == "modelopt" && read?.algorithm == "NVFP4" && read?.kvCache == .fp8)
  }

  @Test func mutationsNeverTrap() throws {
    var generator = SplitMix(seed: 5)
    var (read, refused) = (0, 0)
    for round in 0..<6000 {
      var bytes = Array((round % 2 == 0 ? Self.llama : Self.deepseekR1).utf8)
      generator.mutate(&bytes)
      guard let document = try? JSONValue.parse(bytes: bytes) else { continue }
      do throws(CheckpointError) {
        let model = try ModelConfiguration(json: document)
        #expect(model.softmaxScale.isFinite)
        let frequencies = model.rope.inverseFrequencies(dimension: 64)
        #expect(!frequencies.contains { !$0.isFinite })
        _ = (0..<model.layerCount).filter { model.moe?.isSparse(layer: $0) == true }
        read += 1
      } catch {
        #expect(!error.description.isEmpty)
        refused += 1
      }
    }
    #expect(read > 200 && refused > 500, "\(read) read, \(refused) refused")
  }
}
