import Checkpoints
import KVQuantization
import TestSupport
import Testing

@Suite struct ModelSummaryTests {
  @Test func describesTheShippedModel() throws {
    let summary = try ModelSummary(Checkpoint(directory: Repository.model("tiny-qwen3")))
    #expect(summary.parameterCount == 11_605_632)
    #expect(summary.byteCount == 2 * summary.parameterCount && summary.tensorCount == 68)
    // 6 layers x 2 heads x (64 keys + 64 values).
    #expect(summary.cacheCosts.first { $0.recipe == .bf16 }?.bytesPerToken == 3072)
    #expect(summary.cacheCosts.first { $0.recipe == .nvfp4 }?.bytesPerToken == 864)
    #expect(summary.text.contains("parameters             11,605,632"))
    #expect(summary.text.contains("3.56 x the tokens of bf16"))
    #expect(summary.json["kv_bytes_per_token"]?["mxfp4"] == 816)
    #expect(summary.json["dtypes"]?["BF16"]?.intValue == summary.parameterCount)
  }

  @Test func costsOfLatentAttention() throws {
    let model = try ModelConfigurationTests.altered([:], of: ModelConfigurationTests.deepseekR1)
    #expect(model.kvBytesPerToken(.bf16) == 70_272)
    #expect(model.kvBytesPerToken(.nvfp4) == 25_376)
    #expect(model.kvBytesPerToken(.nvfp4, rope: .nvfp4) == 19_764)
    #expect(model.kvBytesPerToken(.fp8E4M3, rope: .fp8E4M3) == 35_136)
    let odd = try ModelConfigurationTests.altered(["kv_lora_rank": 520], of: ModelConfigurationTests.deepseekR1)
    #expect(odd.kvBytesPerToken(.nvfp4) == nil)
  }
}
