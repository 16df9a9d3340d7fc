/// How SGLang resolves backends for an NVFP4 cache, and what its native form excludes, as data.
public struct SGLangNVFP4: Hashable, Sendable {
  /// An option that native NVFP4 doesn't go with.
  public struct Exclusion: Hashable, Sendable {
    public let name: String
    /// A value that means the option is off.
    public let offValue: String?
    public let expectation: String
  }

  public static let recipe = "nvfp4"
  public static let dequantOption = "prefill-kv-cache-dequant-dtype"
  static let rule = "NVFP4 resolution"
  static let nativeRule = "SM100 native nvfp4"

  /// Compute capabilities, ten times major plus minor, that have it at all, and that read it natively in prefill.
  public let capabilities: [Int]
  public let nativeCapabilities: [Int]
  public let decode: String
  /// --prefill-kv-cache-dequant-dtype, and the prefill backend that it means.
  public let prefillOfDequant: [String: String]
  /// What `auto` means with and without a native GPU.
  public let nativeDequant: String
  public let otherDequant: String
  public let excludedOptions: [Exclusion]
  public let speculativeAlgorithms: [String]
  /// Algorithms that need one of the options at 1.
  public let breadthOfOne: [String: [String]]
  public let draftBackend: String
  public let pageUnit: Int
  public let headDimensionUnit: Int

  /// Prefill on this backend reads the cache natively.
  var nativePrefill: String? { prefillOfDequant[nativeDequant] }

  static let release0523 = SGLangNVFP4(
    capabilities: [100, 103, 120, 121], nativeCapabilities: [100, 103], decode: "trtllm_mha",
    prefillOfDequant: ["fp8_e4m3": "flashinfer", "nvfp4": "trtllm_mha"], nativeDequant: "nvfp4",
    otherDequant: "fp8_e4m3",
    excludedOptions: [
      Exclusion(name: "enable-hierarchical-cache", offValue: nil, expectation: "it left out"),
      Exclusion(name: "enable-lmcache", offValue: nil, expectation: "it left out"),
      Exclusion(name: "disaggregation-mode", offValue: "null", expectation: "one server for prefill and decode"),
    ],
    speculativeAlgorithms: ["EAGLE", "EAGLE3", "NEXTN", "NGRAM"],
    breadthOfOne: ["NGRAM": ["speculative-ngram-max-bfs-breadth", "speculative-eagle-topk"]],
    draftBackend: "trtllm_mha", pageUnit: 4, headDimensionUnit: 64)
}

extension SGLangRun {
  /// The prefill backend that the options mean; nil where it depends on a GPU that isn't named.
  func prefillBackend(_ rules: SGLangNVFP4) -> String? {
    let dequant = arguments[SGLangNVFP4.dequantOption] ?? "auto"
    if let backend = rules.prefillOfDequant[dequant] { return backend }
    guard let capability = context.computeCapability else { return nil }
    let resolved = rules.nativeCapabilities.contains(capability) ? rules.nativeDequant : rules.otherDequant
    return rules.prefillOfDequant[resolved]
  }

  mutating func check(_ rules: SGLangNVFP4) {
    let names = rules.capabilities.map { "SM\($0)" }.joined(separator: ", ")
    if let capability = context.computeCapability {
      if !rules.capabilities.contains(capability) {
        report(
          .refuses, "nvfp4 on SM\(capability): expected one of \(names); fp4_mx_block16 runs elsewhere",
          SGLangNVFP4.rule)
      }
    } else {
      report(.note, "nvfp4 needs one of \(names): pass --compute-capability", SGLangNVFP4.rule)
    }
    if context.usesMLA {
      report(
        .refuses, "nvfp4 with MLA: its decode is \(rules.decode), which is for MHA; expected fp4_mx_block16",
        SGLangNVFP4.rule)
    }
    if let decode, decode != rules.decode {
      report(.refuses, "nvfp4 decode on \(decode): expected \(rules.decode)", SGLangNVFP4.rule)
    }
    if let prefill, !rules.prefillOfDequant.values.contains(prefill) {
      let known = rules.prefillOfDequant.sorted { $0.key < $1.key }.map { "\($0.value) (\($0.key))" }
      report(
        .refuses, "nvfp4 prefill on \(prefill): expected \(known.joined(separator: " or "))", SGLangNVFP4.rule)
    }
    if prefill == rules.nativePrefill { checkNative(rules) }
  }

  private mutating func checkNative(_ rules: SGLangNVFP4) {
    if let capability = context.computeCapability, !rules.nativeCapabilities.contains(capability) {
      let names = rules.nativeCapabilities.map { "SM\($0)" }.joined(separator: " or ")
      report(
        .refuses,
        "native nvfp4 prefill on \(rules.nativePrefill ?? ""): expected \(names), elsewhere "
          + "\(rules.prefillOfDequant[rules.otherDequant] ?? "")", SGLangNVFP4.rule)
    }
    for exclusion in rules.excludedOptions where arguments.isSet(exclusion.name) {
      let value = arguments[exclusion.name] ?? ""
      guard value != exclusion.offValue, exclusion.offValue == nil || !value.isEmpty else { continue }
      report(
        .refuses, "--\(exclusion.name)\(value.isEmpty ? "" : " " + value): expected \(exclusion.expectation)",
        SGLangNVFP4.nativeRule)
    }
    checkNativeSpeculation(rules)
    if let page = pageSize, page % rules.pageUnit != 0 {
      report(
        .refuses, "pages of \(page) tokens: expected a multiple of \(rules.pageUnit)", SGLangNVFP4.nativeRule)
    }
    if let dimension = context.headDimension, dimension % rules.headDimensionUnit != 0 {
      report(
        .refuses, "a head dimension of \(dimension): expected a multiple of \(rules.headDimensionUnit)",
        SGLangNVFP4.nativeRule)
    }
  }

  private mutating func checkNativeSpeculation(_ rules: SGLangNVFP4) {
    guard let algorithm = arguments["speculative-algorithm"]?.uppercased() else { return }
    if !rules.speculativeAlgorithms.contains(algorithm) {
      let known = rules.speculativeAlgorithms.joined(separator: ", ")
      report(.refuses, "\(algorithm) speculation: expected one of \(known)", SGLangNVFP4.nativeRule)
    } else if let options = rules.breadthOfOne[algorithm] {
      let breadth = options.compactMap { arguments[$0] }.first
      if breadth != "1" {
        report(
          .refuses, "\(algorithm) speculation with breadth \(breadth ?? "unset"): expected 1 (--\(options[0]) 1)",
          SGLangNVFP4.nativeRule)
      }
    }
    if let draft = arguments["speculative-draft-attention-backend"], draft != rules.draftBackend {
      report(.refuses, "a draft on \(draft): expected \(rules.draftBackend)", SGLangNVFP4.nativeRule)
    }
  }
}
