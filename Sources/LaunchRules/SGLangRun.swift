/// One judgement in progress: the rules are `SGLangVersion`'s and `SGLangBackend`'s data, this only applies them.
struct SGLangRun {
  let version: SGLangVersion
  let context: LaunchContext
  let arguments: LaunchArguments
  private(set) var findings: [LaunchFinding] = []
  private(set) var prefill: String?
  private(set) var decode: String?

  init(version: SGLangVersion, context: LaunchContext, arguments: LaunchArguments) {
    self.version = version
    self.context = context
    self.arguments = arguments
  }

  var dtype: String { arguments["kv-cache-dtype"] ?? "auto" }
  var isFP4: Bool { version.recipes.contains(dtype) }
  /// NVFP4's own rules, if the launch asks for it.
  var nvfp4: SGLangNVFP4? { dtype == SGLangNVFP4.recipe ? version.nvfp4 : nil }
  var pageSize: Int? { arguments["page-size"].flatMap { Int($0) } }
  private var backends: [SGLangBackend] { SGLangBackend.all(usesMLA: context.usesMLA) }
  /// The documented rows of the backends in use.
  private var rowsInUse: [SGLangBackend] {
    Set([prefill, decode].compactMap { $0 }).sorted().compactMap { name in backends.first { $0.name == name } }
  }

  mutating func report(_ severity: LaunchFinding.Severity, _ text: String, _ rule: String) {
    findings.append(LaunchFinding(severity: severity, text: text, rule: "\(version.source), \(rule)"))
  }

  mutating func check() {
    checkRecipe()
    resolveBackends()
    checkNames()
    if isFP4 {
      checkPlatform()
      if let nvfp4 { check(nvfp4) } else { checkHandler() }
    } else {
      checkMatrix()
    }
    checkPages()
    checkSpeculation()
  }

  // MARK: Recipes and names

  private mutating func checkRecipe() {
    if let reason = version.retiredRecipes[dtype] {
      let names = version.recipes.joined(separator: " or ")
      report(.refuses, "--kv-cache-dtype \(dtype) \(reason): expected \(names)", "recipe names")
    } else if SGLangVersion.known.contains(where: { $0.knows(dtype) }), !isFP4 {
      report(
        .refuses, "--kv-cache-dtype \(dtype) is not known there: expected \(version.recipes.joined(separator: ", "))",
        "recipe names")
    }
    guard let dequant = arguments[SGLangNVFP4.dequantOption] else { return }
    guard let rules = version.nvfp4 else {
      report(.refuses, "--\(SGLangNVFP4.dequantOption) is not an option there", SGLangNVFP4.rule)
      return
    }
    if nvfp4 == nil {
      report(
        .refuses, "--\(SGLangNVFP4.dequantOption) goes with --kv-cache-dtype nvfp4 only, found \(dtype)",
        SGLangNVFP4.rule)
    } else if dequant != "auto", rules.prefillOfDequant[dequant] == nil {
      let known = (["auto"] + rules.prefillOfDequant.keys.sorted()).joined(separator: ", ")
      report(.refuses, "--\(SGLangNVFP4.dequantOption) \(dequant): expected one of \(known)", SGLangNVFP4.rule)
    }
  }

  /// What the flags say, else the recipe's own pair, else the GPU's usual default.
  private mutating func resolveBackends() {
    let both = arguments["attention-backend"]
    let (ownPrefill, ownDecode) = (nvfp4.map { prefillBackend($0) }, nvfp4?.decode)
    let usual = version.defaultBackend(usesMLA: context.usesMLA, capability: context.computeCapability)
    decode = arguments["decode-attention-backend"] ?? both ?? ownDecode ?? usual
    prefill = arguments["prefill-attention-backend"] ?? both ?? (ownPrefill ?? usual)
  }

  private mutating func checkNames() {
    for (phase, name) in [("prefill", prefill), ("decode", decode)] {
      guard let name else {
        report(
          .note, "the \(phase) backend depends on the GPU: pass --compute-capability, or name it in the launch",
          "defaults")
        continue
      }
      guard let row = backends.first(where: { $0.name == name }) else {
        let known = backends.map(\.name).joined(separator: ", ")
        let reason = SGLangBackend.elsewhere.contains(name) ? "is of another platform" : "is not for \(context.kind)"
        report(.refuses, "the \(phase) backend \(name) \(reason): expected one of \(known)", "support matrix")
        continue
      }
      if phase == "decode", row.prefillOnly {
        report(
          .refuses, "\(name) does prefill only: expected --decode-attention-backend with another", "support matrix")
      }
    }
    if arguments["attention-backend"] == nil, arguments["decode-attention-backend"] == nil, nvfp4 == nil, let decode {
      report(.note, "no backend is named; \(decode) is the default of this GPU and model kind", "defaults")
    }
  }

  private mutating func checkPlatform() {
    if let device = arguments["device"], !device.isEmpty, device != "auto", !version.devices.contains(device) {
      report(
        .refuses, "a 4-bit cache on \(device): expected \(version.devices.joined(separator: " or "))", "platform")
    }
    for option in version.refusedOptions where arguments.isSet(option) {
      report(.refuses, "--\(option) doesn't go with a 4-bit cache: expected it left out", "unified memory")
    }
  }

  // MARK: The handler's lists

  private mutating func checkHandler() {
    guard let prefill, let decode else { return }
    if prefill == "fa4" {
      let allowed = context.usesMLA ? version.decodeBesideFA4MLA : version.decodeBesideFA4MHA
      if !allowed.contains(decode) {
        report(
          .refuses,
          "decode on \(decode) beside an fa4 prefill with \(context.kind): expected \(allowed.joined(separator: ", "))",
          "fa4 prefill, \(context.kind)")
      }
    } else if prefill != decode {
      report(
        .degrades, "prefill on \(prefill) and decode on \(decode) are not tested together with a 4-bit cache",
        "differing backends")
    } else {
      let allowed = context.usesMLA ? version.bothMLA : version.bothMHA
      if !allowed.contains(decode) {
        report(
          .refuses, "\(decode) for both phases with \(context.kind): expected \(allowed.joined(separator: ", "))",
          "one backend for both, \(context.kind)")
      }
    }
    for name in Set([prefill, decode]).sorted() where version.refusedByOwnValidator.contains(name) {
      report(
        .refuses, "\(name) passes the handler but its own validator takes fp8_e4m3, bf16 and auto only",
        "\(name)'s validator")
    }
  }

  // MARK: The documented matrix

  /// FP8 where the matrix says no.
  private mutating func checkMatrix() {
    guard dtype.hasPrefix("fp8") else { return }
    for row in rowsInUse where !row.fp8 {
      report(
        .degrades, "\(row.name) with an FP8 cache is documented as unsupported for \(context.kind)", "support matrix")
    }
  }

  private mutating func checkPages() {
    if let text = arguments["page-size"], pageSize.map({ $0 <= 0 }) ?? true {
      report(.refuses, "--page-size \(text): expected a positive number", "page sizes")
      return
    }
    guard let page = pageSize else { return }
    for row in rowsInUse where !row.pageSizes.isEmpty && !row.pageSizes.contains(page) {
      let sizes = row.pageSizes.map(String.init).joined(separator: ", ")
      let outcome = row.snapsTo.map { "\(page) becomes \($0)" } ?? "\(page) is not documented to work"
      report(.degrades, "\(row.name) works in pages of \(sizes): \(outcome)", "page sizes")
    }
  }

  private mutating func checkSpeculation() {
    guard arguments["speculative-algorithm"] != nil, let row = rowsInUse.first(where: { $0.name == decode }),
      !row.prefillOnly
    else { return }
    let branches = arguments["speculative-eagle-topk"].flatMap { Int($0) } ?? 1
    if row.drafts == .none {
      report(
        .degrades, "speculation on \(row.name) is documented as unsupported for \(context.kind)", "support matrix")
    } else if branches > 1, row.drafts == .chain {
      report(
        .degrades,
        "--speculative-eagle-topk \(branches) on \(row.name): documented for 1 only with \(context.kind)",
        "support matrix")
    } else if branches > 1, row.drafts == .treeInPagesOfOne, let page = pageSize, page > 1 {
      report(
        .degrades,
        "--speculative-eagle-topk \(branches) on \(row.name) in pages of \(page): documented for pages of 1 only",
        "support matrix")
    }
  }
}
