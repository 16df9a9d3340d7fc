import ArgumentParser
import CPUBackend
import Checkpoints
import Engine
import KVQuantization
import ModelFamilies
import PagedCache

/// How keys and values are stored; the same flags for every command that runs a model.
struct CacheOptions: ParsableArguments {
  @Option(
    help:
      "Recipe of keys and values: \(KVRecipe.allCases.map(\.name).joined(separator: ", ")), or an alias (default: nvfp4)."
  )
  var kvCacheDtype: String?

  @Option(help: "Recipe of keys, where it differs from that of values.")
  var kvCacheDtypeK: String?

  @Option(help: "Recipe of values, where it differs from that of keys.")
  var kvCacheDtypeV: String?

  @Option(help: "Recipe of MLA's rotary key (default: bf16; f32 where keys are f32).")
  var kvCacheDtypeRope: String?

  @Option(help: "Tokens a page, a multiple of 16.")
  var pageSize = 64

  @OptionGroup var scaleOptions: KVScaleOptions

  /// - Throws: `KVQuantizationError.unknownRecipe`.
  func recipes() throws -> CacheRecipes {
    let both = kvCacheDtype ?? KVRecipe.nvfp4.name
    return CacheRecipes(
      key: try KVRecipe.named(kvCacheDtypeK ?? both), value: try KVRecipe.named(kvCacheDtypeV ?? both),
      rope: try kvCacheDtypeRope.map(KVRecipe.named))
  }
}

extension CacheOptions {
  /// A recipe for what the model doesn't store is a mistake, not something to pass over.
  /// - Throws: `CommandFailure` for values of MLA, and for rotary keys of other attention.
  func check(_ model: ModelConfiguration) throws {
    if model.mla != nil, let kvCacheDtypeV, try KVRecipe.named(kvCacheDtypeV) != recipes().key {
      throw CommandFailure(
        .usage,
        "--kv-cache-dtype-v \(kvCacheDtypeV): expected a model that stores values, found \(model.architecture.rawValue), whose "
          + "latent is key and value in one; try --kv-cache-dtype for it and --kv-cache-dtype-rope for the rotary key")
    }
    if model.mla == nil, let kvCacheDtypeRope {
      throw CommandFailure(
        .usage,
        "--kv-cache-dtype-rope \(kvCacheDtypeRope): expected a model with latent attention, found "
          + "\(model.architecture.rawValue), whose rotary keys are its keys; try --kv-cache-dtype-k")
    }
  }
}

/// Where KV scales come from.
struct KVScaleOptions: ParsableArguments {
  @Option(
    name: [.long, .customLong("quantization-param-path")],
    help:
      "KV scales: auto (the checkpoint's, or kv_scales.json beside it), checkpoint, none, or a JSON file (default: auto; logits: checkpoint)."
  )
  var kvCacheScales: String?

  @Option(
    help:
      "What the scales are of amax where they don't say: \(KVScaleConvention.allCases.map(\.rawValue).joined(separator: ", "))."
  )
  var kvScaleConvention: String?

  /// - Parameter standard: where scales come from without a flag.
  /// - Throws: `KVQuantizationError.unknownScaleConvention`.
  func request(default standard: KVScaleRequest.Source = .automatic) throws -> KVScaleRequest {
    let source: KVScaleRequest.Source =
      switch kvCacheScales {
      case nil: standard
      case "auto": .automatic
      case "checkpoint": .checkpoint
      case "none": .none
      case let path?: .file(path)
      }
    return KVScaleRequest(source: source, convention: try kvScaleConvention.map(KVScaleConvention.named))
  }
}

/// Which model runs, and on what.
struct ModelOptions: ParsableArguments {
  @Option(help: "Hugging Face model folder (default: the model that ships with nibble).")
  var model: String?

  @Option(help: "Attention backend: auto, cpu, reference.")
  var attentionBackend = "auto"

  @Option(help: "Attention backend of prefill, where it differs.")
  var prefillAttentionBackend: String?

  @Option(help: "Attention backend of decode, where it differs.")
  var decodeAttentionBackend: String?

  @Option(
    help:
      "Precision of the cpu backend's attention to four-bit keys and values, with AVX-512: full (23 bits, float32's error) or fast (16 bits, error 5e-5)."
  )
  var attentionPrecision = AttentionPrecision.full

  @OptionGroup var threadsOption: ThreadsOption
  var threads: Int? { threadsOption.threads }

  @Option(
    help:
      "Convert weights when loading: auto (as in the checkpoint), \(CPUWeightType.allCases.map(\.rawValue).joined(separator: ", "))."
  )
  var weightDtype = "auto"

  func validate() throws {
    guard weightDtype == "auto" || CPUWeightType(rawValue: weightDtype) != nil else {
      throw ValidationError(
        "unknown weight dtype '\(weightDtype)'; expected auto, \(CPUWeightType.allCases.map(\.rawValue).joined(separator: ", "))"
      )
    }
  }
}

extension ModelOptions {
  /// - Throws: `KVQuantizationError.unknownRecipe`.
  /// - Parameter drafts: draft tokens in a decode step.
  func attentionRequest(cache: CacheOptions?, drafts: Int = 0) throws -> AttentionRequest {
    attentionRequest(try cache?.recipes() ?? CacheRecipes(.nvfp4), pageSize: cache?.pageSize ?? 64, drafts: drafts)
  }

  func attentionRequest(_ recipes: CacheRecipes, pageSize: Int, drafts: Int = 0) -> AttentionRequest {
    AttentionRequest(
      backend: attentionBackend, prefill: prefillAttentionBackend, decode: decodeAttentionBackend,
      precision: attentionPrecision, recipes: recipes, pageSize: pageSize, draftTokenCount: drafts)
  }

  /// Why it is this folder.
  var folderReason: String { model == nil ? "the model that ships with nibble" : "--model" }

  /// What weights are converted to; nil keeps the checkpoint's type.
  var weightType: CPUWeightType? { CPUWeightType(rawValue: weightDtype) }

  /// Loads the model, with a progress bar where stderr is a terminal.
  /// - Parameter speculation: with its layers for multi-token prediction.
  /// - Throws: before any weight is read where no attention backend reads such a cache.
  func load(cache: CacheOptions? = nil, speculation: Speculation? = nil) throws -> ModelRuntime {
    let directory = try ModelLocation.resolve(model)
    try cache?.check(ModelConfiguration(directory: directory))
    var bar = ProgressBar("loading \(directory)")
    return try ModelRuntime(
      directory: directory, attention: try attentionRequest(cache: cache, drafts: speculation?.draftTokenCount ?? 0),
      threadCount: threads, weightType: weightType, speculation: speculation, progress: { bar.update($0) })
  }
}

extension AttentionPrecision: ExpressibleByArgument {}
