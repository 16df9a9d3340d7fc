import LaunchRules
import Testing

@Suite struct SGLangCheckTests {
  static func judge(
    _ line: String, mla: Bool = false, capability: Int? = 100, version: SGLangVersion = .release0523,
    headDimension: Int? = nil
  ) -> LaunchVerdict {
    let context = LaunchContext(usesMLA: mla, computeCapability: capability, headDimension: headDimension)
    return SGLangCheck(version: version, context: context).judge(
      LaunchArguments(line.split(separator: " ").map(String.init)))
  }

  /// Every allow-list of the handler, both versions, against every backend.
  @Test(arguments: SGLangVersion.known, [false, true])
  func allowLists(version: SGLangVersion, mla: Bool) {
    let recipe = version == .introduction ? "fp4_e2m1" : "fp4_mx_block16"
    for backend in SGLangBackend.all(usesMLA: mla) where !backend.prefillOnly {
      let name = backend.name
      let both = Self.judge("--kv-cache-dtype \(recipe) --attention-backend \(name)", mla: mla, version: version)
      let listed = (mla ? version.bothMLA : version.bothMHA).contains(name)
      let works = listed && !version.refusedByOwnValidator.contains(name)
      #expect((both.severity != .refuses) == works, "\(version.name) \(name): \(both.findings)")
      let mixed = Self.judge(
        "--kv-cache-dtype \(recipe) --prefill-attention-backend fa4 --decode-attention-backend \(name) --page-size \(mla ? 1 : 128)",
        mla: mla, version: version)
      let beside = (mla ? version.decodeBesideFA4MLA : version.decodeBesideFA4MHA).contains(name)
      #expect(
        (mixed.severity != .refuses) == (beside && !version.refusedByOwnValidator.contains(name)),
        "\(version.name) fa4 + \(name)")
    }
  }

  @Test(arguments: [
    // The rule, the launch, MLA, capability, the verdict, and a word of the finding.
    ("--kv-cache-dtype nvfp4", false, 100, "starts", ""),
    ("--kv-cache-dtype nvfp4 --page-size 16", false, 120, "starts", ""),
    ("--kv-cache-dtype nvfp4", false, 90, "refuses", "SM90"),
    ("--kv-cache-dtype nvfp4", true, 100, "refuses", "with MLA"),
    ("--kv-cache-dtype nvfp4 --attention-backend flashinfer", false, 100, "refuses", "nvfp4 decode on flashinfer"),
    ("--kv-cache-dtype nvfp4 --prefill-attention-backend fa4", false, 100, "refuses", "nvfp4 prefill on fa4"),
    ("--kv-cache-dtype nvfp4 --attention-backend trtllm_mha", false, 120, "refuses", "native nvfp4 prefill"),
    (
      "--kv-cache-dtype nvfp4 --decode-attention-backend trtllm_mha --prefill-attention-backend flashinfer", false, 120,
      "starts", ""
    ),
    ("--kv-cache-dtype nvfp4 --prefill-kv-cache-dequant-dtype nvfp4", false, 120, "refuses", "native nvfp4 prefill"),
    ("--kv-cache-dtype nvfp4 --prefill-kv-cache-dequant-dtype fp8_e4m3", false, 100, "starts", ""),
    ("--kv-cache-dtype fp8_e4m3 --prefill-kv-cache-dequant-dtype nvfp4", false, 100, "refuses", "goes with"),
    ("--kv-cache-dtype nvfp4 --prefill-kv-cache-dequant-dtype int8", false, 100, "refuses", "expected one of auto"),
    ("--kv-cache-dtype nvfp4 --disaggregation-mode prefill", false, 100, "refuses", "disaggregation"),
    ("--kv-cache-dtype nvfp4 --enable-hierarchical-cache", false, 100, "refuses", "hierarchical"),
    ("--kv-cache-dtype nvfp4 --enable-lmcache", false, 100, "refuses", "lmcache"),
    // The FP8 workspace lifts the exclusions.
    (
      "--kv-cache-dtype nvfp4 --enable-hierarchical-cache --prefill-kv-cache-dequant-dtype fp8_e4m3", false, 100,
      "starts", ""
    ),
    ("--kv-cache-dtype nvfp4 --speculative-algorithm NEXTN", false, 100, "starts", ""),
    ("--kv-cache-dtype nvfp4 --speculative-algorithm STANDALONE", false, 100, "refuses", "STANDALONE"),
    (
      "--kv-cache-dtype nvfp4 --speculative-algorithm NGRAM --speculative-ngram-max-bfs-breadth 4", false, 100,
      "refuses", "breadth 4"
    ),
    (
      "--kv-cache-dtype nvfp4 --speculative-algorithm NGRAM --speculative-ngram-max-bfs-breadth=1", false, 100,
      "starts", ""
    ),
    (
      "--kv-cache-dtype nvfp4 --speculative-algorithm EAGLE --speculative-draft-attention-backend triton", false, 100,
      "refuses", "a draft on triton"
    ),
    ("--kv-cache-dtype nvfp4 --page-size 30", false, 100, "refuses", "multiple of 4"),
    ("--kv-cache-dtype nvfp4 --page-size 48", false, 100, "degrades", "becomes 64"),
    ("--kv-cache-dtype fp4_mx_block16 --device npu --attention-backend triton", false, 100, "refuses", "expected cuda"),
    (
      "--kv-cache-dtype fp4_mx_block16 --attention-backend triton --enable-unified-memory", false, 90, "refuses",
      "unified"
    ),
    (
      "--kv-cache-dtype fp4_mx_block16 --prefill-attention-backend flashinfer --decode-attention-backend triton", false,
      90, "degrades", "not tested together"
    ),
    // Hopper's default is fa3.
    ("--kv-cache-dtype fp4_mx_block16", false, 90, "refuses", "fa3 for both"),
    ("--kv-cache-dtype fp4_mx_block16 --attention-backend flashinfer", true, 90, "starts", ""),
    ("--kv-cache-dtype fp4_mx_block16 --attention-backend trtllm_mla", true, 100, "refuses", "own validator"),
    ("--kv-cache-dtype fp4_mx_block16 --attention-backend flashmla", true, 90, "refuses", "for both phases"),
    ("--kv-cache-dtype fp4_e2m1 --attention-backend triton", false, 90, "refuses", "renamed"),
    ("--kv-cache-dtype mxfp4 --attention-backend triton", false, 90, "refuses", "reserved"),
    ("--kv-cache-dtype fp8_e4m3 --attention-backend triton", false, 90, "degrades", "documented as unsupported"),
    ("--kv-cache-dtype fp8_e4m3 --attention-backend flashinfer", false, 90, "starts", ""),
    ("--attention-backend fa4", false, 100, "refuses", "prefill only"),
    ("--attention-backend aiter", false, 90, "refuses", "another platform"),
    (
      "--attention-backend trtllm_mha --speculative-algorithm EAGLE --speculative-eagle-topk 4", false, 100, "degrades",
      "documented for 1"
    ),
    ("--attention-backend fa3 --page-size zero", false, 90, "refuses", "positive number"),
    ("--attention-backend triton --page-size 64", false, 90, "degrades", "64 is not documented"),
    ("--attention-backend flashinfer --page-size 16", true, 90, "degrades", "pages of 1"),
    ("--attention-backend cutlass_mla --page-size 64", true, 100, "degrades", "becomes 128"),
    (
      "--attention-backend fa3 --speculative-algorithm EAGLE --speculative-eagle-topk 2 --page-size 64", true, 90,
      "degrades", "pages of 1 only"
    ),
    (
      "--attention-backend fa3 --speculative-algorithm EAGLE --speculative-eagle-topk 2 --page-size 1", true, 90,
      "starts", ""
    ),
    ("--kv-cache-dtype nvfp4 --disaggregation-mode null", false, 100, "starts", ""),
    ("--kv-cache-dtype nvfp4 --prefill-kv-cache-dequant-dtype", false, 100, "refuses", "expected one of auto"),
  ])
  func judges(line: String, mla: Bool, capability: Int, word: String, text: String) {
    let verdict = Self.judge(line, mla: mla, capability: capability)
    #expect(verdict.word == word, "\(verdict.findings)")
    #expect(text.isEmpty || verdict.findings.contains { $0.text.contains(text) }, "\(verdict.findings)")
  }

  @Test func theIntroductionKnowsOneRecipe() {
    let old = SGLangVersion.introduction
    #expect(Self.judge("--kv-cache-dtype fp4_e2m1 --attention-backend triton", version: old).word == "starts")
    #expect(Self.judge("--kv-cache-dtype nvfp4", version: old).word == "refuses")
    #expect(
      Self.judge("--kv-cache-dtype fp4_e2m1 --attention-backend cutlass_mla", mla: true, version: old).word == "starts")
    #expect(SGLangVersion.named("14467") == old && SGLangVersion.named("v0.5.23") == .release0523)
    #expect(SGLangVersion.named("1.0") == nil)
  }

  @Test func headDimensionsCountForNativeNVFP4() {
    #expect(Self.judge("--kv-cache-dtype nvfp4", headDimension: 80).word == "refuses")
    #expect(Self.judge("--kv-cache-dtype nvfp4", headDimension: 128).word == "starts")
  }

  /// What is offered instead starts, and keeps the recipe where that is possible.
  @Test func alternativesStart() throws {
    for (line, mla, capability) in [
      ("--kv-cache-dtype nvfp4 --attention-backend flashinfer", false, 100), ("--kv-cache-dtype nvfp4", false, 90),
      ("--kv-cache-dtype nvfp4", true, 100), ("--kv-cache-dtype fp4_mx_block16", false, 90),
      ("--kv-cache-dtype fp4_mx_block16 --attention-backend trtllm_mla --page-size 64", true, 100),
      ("--kv-cache-dtype nvfp4 --enable-hierarchical-cache --tp 8", false, 100),
      ("--kv-cache-dtype mxfp4 --attention-backend fa4", false, 120),
    ] {
      let verdict = Self.judge(line, mla: mla, capability: capability)
      let alternative = try #require(verdict.alternative, "\(line)")
      #expect(Self.judge(alternative, mla: mla, capability: capability).severity != .refuses, "\(alternative)")
    }
    let kept = Self.judge("--kv-cache-dtype nvfp4 --attention-backend flashinfer --tp 8").alternative
    #expect(kept == "--kv-cache-dtype nvfp4 --tp 8" || kept == "--tp 8 --kv-cache-dtype nvfp4")
    let latent = Self.judge("--kv-cache-dtype nvfp4", mla: true).alternative
    #expect(latent == "--kv-cache-dtype fp4_mx_block16")
  }

  @Test func withoutTheGPUItSaysSo() {
    let verdict = Self.judge("--kv-cache-dtype nvfp4", capability: nil)
    #expect(verdict.findings.contains { $0.text.contains("pass --compute-capability") })
  }

  @Test func readsEveryFormOfOptions() {
    let arguments = LaunchArguments(
      ["python", "-m", "sglang.launch_server", "--a", "1", "--b=2", "--flag", "--a", "3", "--off", "false"])
    #expect(arguments["a"] == "3" && arguments["b"] == "2" && arguments.isSet("flag") && !arguments.isSet("off"))
    #expect(!arguments.isSet("none") && arguments.command == ["python", "-m", "sglang.launch_server"])
    #expect(arguments.text == "--a 3 --b 2 --flag --off false")
    #expect(arguments.setting("b", nil).text == "--a 3 --flag --off false")
  }
}
